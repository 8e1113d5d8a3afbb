/** The ways to a destination, best first: HAGs that work over the WANs in use and, where wanted, around the HAGs. */
import { familyOfAddress, formatSocketAddress } from '../../base/address.js'
import type { Outcome } from '../../engine/race.js'
import type { Hag, Path, WanPath } from '../model.js'
import type { HagPath } from './prepared.js'

/** How long a way that failed comes last, so that not every new connection pays for it until the monitors know. */
const restMs = 5000
/** A way around the HAGs that was overtaken so often in a row comes last: one lost SYN says nothing of a WAN. */
const overtakesToRest = 2
/**
 * Before the next way is tried beside a silent one: thrice the round trip, in which a lost SYN would not be sent again anyway
 * (RFC 6298 section 2.1: after 1 s).
 */
const patience = { roundTrips: 3, leastMs: 150, mostMs: 1000, unknownMs: 300 }
/** Going around a HAG loses the bundle and changes the public address: not for a moment's silence. */
const directPatienceMs = 1000

interface RestingPath extends Path {
  /** Until then others come first; 0 while it works. */
  restsUntil: number
  /** So many connections in a row had their answer over a later way. */
  overtakes: number
}

/** What the ways are made of now. */
export interface Resources {
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

export class Upstreams {
  /** Called when `standing` may be another. */
  onChange: () => void = () => {}
  readonly #onHagDown: 'direct' | 'reject'
  readonly #now: () => number
  #known = new Map<string, RestingPath>()
  #hagAddresses: ReadonlySet<string> = new Set()
  #hagWays: RestingPath[] = []
  #preparable: readonly HagPath[] = []
  #ways: { 4: readonly Path[]; 6: readonly Path[] } = { 4: [], 6: [] }
  #direct: ByFamily<readonly RestingPath[]> = { 4: [], 6: [] }

  constructor(options: { onHagDown: 'direct' | 'reject'; now?: () => number }) {
    this.#onHagDown = options.onHagDown
    this.#now = options.now ?? (() => performance.now())
  }

  /** To be called after every change. What is known of a way that stays is kept. */
  use({ hags, pipelines, refuses, hagsDown, paths, direct = paths }: Resources): void {
    const over = (hag: Hag, isUsable: boolean) =>
      paths[familyOfAddress(hag.address)]
        .filter(({ usable, bind }) => usable === isUsable && refuses?.(hag, bind) !== true)
        .map((path) => this.#way(path, hag, pipelines(hag)))
    const known = new Map<string, RestingPath>()
    const ready = hags.map((hag) => over(hag, true))
    // A WAN that is thought to be down is worth a try only where no other way is left.
    const hagWays = [
      ...ready.flat(),
      ...hags.flatMap((hag) => over(hag, false)),
      ...(this.#onHagDown === 'reject' ? hagsDown.flatMap((hag) => [...over(hag, true), ...over(hag, false)]) : []),
    ]
    const around = { 4: direct[4].map((path) => this.#way(path)), 6: direct[6].map((path) => this.#way(path)) }
    for (const way of [...hagWays, ...around[4], ...around[6]]) known.set(keyOf(way), way)
    this.#known = known
    this.#hagAddresses = new Set([...hags, ...hagsDown].map(({ address }) => address))
    this.#hagWays = hagWays
    this.#direct = around
    this.#preparable = (ready.find((ways) => ways.length > 0) ?? []) as HagPath[]
    const last = hagWays.at(-1)
    const fallback = this.#onHagDown === 'direct' ? this.#direct : { 4: [], 6: [] }
    if (last !== undefined && this.#onHagDown === 'direct') last.patienceMs = Math.max(last.patienceMs, directPatienceMs)
    this.#ways = { 4: [...hagWays, ...fallback[4]], 6: [...hagWays, ...fallback[6]] }
    this.onChange()
  }

  /** The way to a HAG that comes first for every destination; undefined where that has to be decided for each connection. */
  get standing(): HagPath | undefined {
    const [first] = this.#hagWays
    return first?.restsUntil === 0 ? (first as RestingPath & HagPath) : undefined
  }

  /** The ways to a destination, best first. */
  ways(destination: string): readonly Path[] {
    const family = familyOfAddress(destination)
    const works = ({ restsUntil }: RestingPath) => restsUntil === 0
    if (this.#hagWays.every(works) && this.#direct[family].every(works)) return this.#ways[family]
    const now = this.#now()
    const ready = this.#hagWays.filter(({ restsUntil }) => restsUntil <= now)
    const rest =
      this.#onHagDown === 'direct' ? this.direct(destination) : this.#hagWays.filter(({ restsUntil }) => restsUntil > now)
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
    return path.hag !== undefined && !this.#hagWays.includes(path as RestingPath)
  }

  /** Ways around the HAGs, for bypassed destinations. */
  direct(destination: string): readonly Path[] {
    const ways = this.#direct[familyOfAddress(destination)]
    const now = this.#now()
    if (ways.every(({ restsUntil }) => restsUntil <= now)) return ways
    return [...ways.filter(({ restsUntil }) => restsUntil <= now), ...ways.filter(({ restsUntil }) => restsUntil > now)]
  }

  /** To be called before an attempt: the first connection after a rest tries the way alone, others wait for what it finds. */
  trying(path: Path): void {
    if ((path as RestingPath).restsUntil !== 0) (path as RestingPath).restsUntil = this.#now() + restMs
  }

  /** Learns from an attempt over a way that `ways` gave. */
  saw(path: Path, outcome: Outcome): void {
    const resting = path as RestingPath
    if (outcome.type === 'opened') resting.overtakes = 0
    if (path.hag === undefined && outcome.type === 'opened') resting.restsUntil = 0
    if (path.hag === undefined || outcome.type === 'closed') return
    const before = resting.restsUntil
    // That the WAN was lost meanwhile says nothing of the HAG: once the WAN is back, connections must not go to another HAG.
    if (outcome.type === 'failed' && outcome.failure.code === 'ENETDOWN') return
    if (outcome.type === 'failed' && outcome.stage !== 'request') resting.restsUntil = this.#now() + restMs
    // A HAG that answers a request works, whatever the answer; one that fails while it serves the request tells us nothing.
    else if (outcome.type === 'opened' || outcome.reply !== undefined) resting.restsUntil = 0
    if ((before === 0) !== (resting.restsUntil === 0)) this.onChange()
  }

  /**
   * A connection had its answer over a later way before this one had one. Around the HAGs nobody else asks whether a WAN works while no HAG
   * answers over any.
   */
  overtaken(path: Path): void {
    const resting = path as RestingPath
    resting.overtakes += 1
    if (path.hag === undefined && resting.overtakes >= overtakesToRest) resting.restsUntil = this.#now() + restMs
  }

  #way({ wan, bind, protocol, rttMs, leastRttMs }: WanPath, hag?: Hag, pipelined = false): RestingPath {
    const { roundTrips, leastMs, mostMs, unknownMs } = patience
    const patienceMs = rttMs === undefined ? unknownMs : Math.ceil(Math.min(Math.max(roundTrips * rttMs, leastMs), mostMs))
    const base = { wan, bind, patienceMs, leastRttMs, pipelined, protocol: hag === undefined ? ('tcp' as const) : protocol }
    const way = { ...base, ...(hag && { hag }), restsUntil: 0, overtakes: 0 }
    // The same object, so that attempts under way teach the one that is used.
    const known = this.#known.get(keyOf(way))
    return known === undefined ? way : Object.assign(known, base)
  }
}

/** A WAN with another address is another way. */
function keyOf({ hag, wan, bind }: Path): string {
  return `${hag === undefined ? '' : formatSocketAddress(hag)} ${wan} ${bind}`
}
