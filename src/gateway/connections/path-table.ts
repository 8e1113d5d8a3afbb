/** The ways to a destination, best first: HAGs that work over the WANs in use and, where wanted, around the HAGs. */
import { familyOfAddress, formatSocketAddress } from '../../base/address.js'
import type { DialOutcome } from '../../engine/race.js'
import type { Hag, Path, WanPath } from '../model.js'
import type { HagPath } from './prepared.js'

/** How long a way that failed comes last, so that not every new connection pays for it until the monitors know. */
const cooldownMs = 5000
/** A direct path that lost so many races in a row comes last: one lost SYN says nothing of a WAN. */
const lostRacesToCoolDown = 2
/**
 * Before the next way is tried beside a silent one: thrice the round trip, in which a lost SYN would not be sent again anyway
 * (RFC 6298 section 2.1: after 1 s).
 */
const patience = { roundTrips: 3, leastMs: 150, mostMs: 1000, unknownMs: 300 }
/** Going around a HAG loses the bundle and changes the public address: not for a moment's silence. */
const directPatienceMs = 1000

interface TablePath extends Path {
  /** Until then others come first; 0 while it works. */
  cooldownUntil: number
  /** So many connections in a row had their answer over a later way. */
  lostRaces: number
}

/** What the ways are made of now. */
export interface PathTableInput {
  /** Best first, and none that is down. */
  hags: readonly Hag[]
  pipelines(hag: Hag): boolean
  /** Over this WAN it takes nothing from us; where left out, none does that. */
  refuses?(hag: Hag, bind: string): boolean
  /** Tried when nothing else is left. */
  hagsDown: readonly Hag[]
  /** By family, best first; those not to be used now come last. */
  paths: ByFamily<readonly WanPath[]>
  /** Around the HAGs; where left out over the same WANs. */
  direct?: ByFamily<readonly WanPath[]>
}

interface ByFamily<Value> {
  4: Value
  6: Value
}

export class PathTable {
  /** Called when `standing` may be another. */
  onChange: () => void = () => {}
  readonly #onHagDown: 'direct' | 'reject'
  readonly #now: () => number
  #known = new Map<string, TablePath>()
  #hagAddresses: ReadonlySet<string> = new Set()
  #hagPaths: TablePath[] = []
  #preparable: readonly HagPath[] = []
  #paths: { 4: readonly Path[]; 6: readonly Path[] } = { 4: [], 6: [] }
  #direct: ByFamily<readonly TablePath[]> = { 4: [], 6: [] }

  constructor(options: { onHagDown: 'direct' | 'reject'; now?: () => number }) {
    this.#onHagDown = options.onHagDown
    this.#now = options.now ?? (() => performance.now())
  }

  /** To be called after every change. What is known of a way that stays is kept. */
  use({ hags, pipelines, refuses, hagsDown, paths, direct = paths }: PathTableInput): void {
    const over = (hag: Hag, isUsable: boolean) =>
      paths[familyOfAddress(hag.address)]
        .filter(({ usable, bind }) => usable === isUsable && refuses?.(hag, bind) !== true)
        .map((path) => this.#tablePath(path, hag, pipelines(hag)))
    const known = new Map<string, TablePath>()
    const ready = hags.map((hag) => over(hag, true))
    // A WAN that is thought to be down is worth a try only where no other way is left.
    const hagPaths = [
      ...ready.flat(),
      ...hags.flatMap((hag) => over(hag, false)),
      ...(this.#onHagDown === 'reject' ? hagsDown.flatMap((hag) => [...over(hag, true), ...over(hag, false)]) : []),
    ]
    const around = { 4: direct[4].map((path) => this.#tablePath(path)), 6: direct[6].map((path) => this.#tablePath(path)) }
    for (const path of [...hagPaths, ...around[4], ...around[6]]) known.set(keyOf(path), path)
    this.#known = known
    this.#hagAddresses = new Set([...hags, ...hagsDown].map(({ address }) => address))
    this.#hagPaths = hagPaths
    this.#direct = around
    this.#preparable = (ready.find((paths) => paths.length > 0) ?? []) as HagPath[]
    const last = hagPaths.at(-1)
    const fallback = this.#onHagDown === 'direct' ? this.#direct : { 4: [], 6: [] }
    if (last !== undefined && this.#onHagDown === 'direct') last.patienceMs = Math.max(last.patienceMs, directPatienceMs)
    this.#paths = { 4: [...hagPaths, ...fallback[4]], 6: [...hagPaths, ...fallback[6]] }
    this.onChange()
  }

  /** The way to a HAG that comes first for every destination; undefined where that has to be decided for each connection. */
  get fastPath(): HagPath | undefined {
    const [first] = this.#hagPaths
    return first?.cooldownUntil === 0 ? (first as TablePath & HagPath) : undefined
  }

  /** The ways to a destination, best first. */
  pathsTo(destination: string): readonly Path[] {
    const family = familyOfAddress(destination)
    const works = ({ cooldownUntil }: TablePath) => cooldownUntil === 0
    if (this.#hagPaths.every(works) && this.#direct[family].every(works)) return this.#paths[family]
    const now = this.#now()
    const ready = this.#hagPaths.filter(({ cooldownUntil }) => cooldownUntil <= now)
    const rest =
      this.#onHagDown === 'direct'
        ? this.directPathsTo(destination)
        : this.#hagPaths.filter(({ cooldownUntil }) => cooldownUntil > now)
    return [...ready, ...rest]
  }

  /** Somebody's wish for a HAG's own machine: its other services. */
  isHag(destination: string): boolean {
    return this.#hagAddresses.has(destination)
  }

  /** The ways over WANs that work to the HAG in use, best first: worth preparing connections for. */
  get preparable(): readonly HagPath[] {
    return this.#preparable
  }

  /** True for a way to a HAG that `ways` would not give any more. */
  isGone(path: Path): boolean {
    return path.hag !== undefined && !this.#hagPaths.includes(path as TablePath)
  }

  /** Ways around the HAGs, for bypassed destinations. */
  directPathsTo(destination: string): readonly Path[] {
    const paths = this.#direct[familyOfAddress(destination)]
    const now = this.#now()
    if (paths.every(({ cooldownUntil }) => cooldownUntil <= now)) return paths
    return [
      ...paths.filter(({ cooldownUntil }) => cooldownUntil <= now),
      ...paths.filter(({ cooldownUntil }) => cooldownUntil > now),
    ]
  }

  /** To be called before an attempt: the first connection after a rest tries the way alone, others wait for what it finds. */
  beginTrial(path: Path): void {
    if ((path as TablePath).cooldownUntil !== 0) (path as TablePath).cooldownUntil = this.#now() + cooldownMs
  }

  /** Learns from an attempt over a way that `ways` gave. */
  recordOutcome(path: Path, outcome: DialOutcome): void {
    const resting = path as TablePath
    if (outcome.type === 'opened') resting.lostRaces = 0
    if (path.hag === undefined && outcome.type === 'opened') resting.cooldownUntil = 0
    if (path.hag === undefined || outcome.type === 'closed') return
    const before = resting.cooldownUntil
    // That the WAN was lost meanwhile says nothing of the HAG: once the WAN is back, connections must not go to another HAG.
    if (outcome.type === 'failed' && outcome.failure.code === 'ENETDOWN') return
    if (outcome.type === 'failed' && outcome.stage !== 'request') resting.cooldownUntil = this.#now() + cooldownMs
    // A HAG that answers a request works, whatever the answer; one that fails while it serves the request tells us nothing.
    else if (outcome.type === 'opened' || outcome.reply !== undefined) resting.cooldownUntil = 0
    if ((before === 0) !== (resting.cooldownUntil === 0)) this.onChange()
  }

  /**
   * A connection had its answer over a later way before this one had one. Around the HAGs nobody else asks whether a WAN works while no HAG
   * answers over any.
   */
  recordLostRace(path: Path): void {
    const resting = path as TablePath
    resting.lostRaces += 1
    if (path.hag === undefined && resting.lostRaces >= lostRacesToCoolDown) resting.cooldownUntil = this.#now() + cooldownMs
  }

  #tablePath({ wan, bind, protocol, rttMs, leastRttMs }: WanPath, hag?: Hag, pipelined = false): TablePath {
    const { roundTrips, leastMs, mostMs, unknownMs } = patience
    const patienceMs = rttMs === undefined ? unknownMs : Math.ceil(Math.min(Math.max(roundTrips * rttMs, leastMs), mostMs))
    const base = { wan, bind, patienceMs, leastRttMs, pipelined, protocol: hag === undefined ? ('tcp' as const) : protocol }
    const path = { ...base, ...(hag && { hag }), cooldownUntil: 0, lostRaces: 0 }
    // The same object, so that attempts under way teach the one that is used.
    const known = this.#known.get(keyOf(path))
    return known === undefined ? path : Object.assign(known, base)
  }
}

/** A WAN with another address is another way. */
function keyOf({ hag, wan, bind }: Path): string {
  return `${hag === undefined ? '' : formatSocketAddress(hag)} ${wan} ${bind}`
}
