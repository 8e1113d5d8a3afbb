/** The paths to a destination, best first, and what connections that tried them have found out. */
import { familyOfAddress, formatSocketAddress } from '../../base/address.js'
import type { DialOutcome } from '../../engine/race.js'
import { type ByFamily, byFamily, type HagPath, type Path, type Paths } from '../model.js'

/** How long a path that failed comes last, so that not every new connection pays for it until the probers know. */
const cooldownMs = 5000
/** A direct path that lost so many races in a row comes last: one lost SYN says nothing of a WAN. */
const lostRacesToCoolDown = 2

interface Memory {
  /** Until then others come first; 0 while it works. */
  cooldownUntil: number
  /** So many connections in a row had their answer over a later path. */
  lostRaces: number
}

type TablePath = Path & Memory

export class PathTable {
  /** Called when `fastPath` may be another. */
  onChange: () => void = () => {}
  readonly #onHagDown: 'direct' | 'reject'
  readonly #now: () => number
  #known = new Map<string, TablePath>()
  #hagAddresses: ReadonlySet<string> = new Set()
  #hagPaths: readonly (HagPath & Memory)[] = []
  #preparable: readonly HagPath[] = []
  #paths: ByFamily<readonly Path[]> = { 4: [], 6: [] }
  #direct: ByFamily<readonly TablePath[]> = { 4: [], 6: [] }

  constructor(options: { onHagDown: 'direct' | 'reject'; now?: () => number }) {
    this.#onHagDown = options.onHagDown
    this.#now = options.now ?? (() => performance.now())
  }

  /** To be called after every change. What is known of a path that stays is kept. */
  use({ hagPaths, direct, preparable, hagAddresses }: Paths): void {
    const known = new Map<string, TablePath>()
    // The same objects, so that attempts under way teach the ones that are used.
    const keep = <Kind extends Path>(path: Kind): Kind & Memory => {
      const key = keyOf(path)
      const kept = Object.assign(this.#known.get(key) ?? { cooldownUntil: 0, lostRaces: 0 }, path)
      known.set(key, kept)
      return kept
    }
    this.#hagPaths = hagPaths.map(keep)
    this.#preparable = this.#hagPaths.slice(0, preparable.length)
    this.#direct = byFamily((family) => direct[family].map(keep))
    this.#paths = byFamily((family) => [...this.#hagPaths, ...(this.#onHagDown === 'direct' ? this.#direct[family] : [])])
    this.#known = known
    this.#hagAddresses = new Set(hagAddresses)
    this.onChange()
  }

  /** The path to a HAG that comes first for every destination; undefined if that has to be decided for each connection. */
  get fastPath(): HagPath | undefined {
    const [first] = this.#hagPaths
    return first?.cooldownUntil === 0 ? first : undefined
  }

  /** The paths to a destination, best first. */
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

  /** The paths over WANs that work to the HAG in use, best first: worth preparing connections for. */
  get preparable(): readonly HagPath[] {
    return this.#preparable
  }

  /** True for a path to a HAG that `pathsTo` would not give any more. */
  isGone(path: Path): boolean {
    return path.hag !== undefined && !this.#hagPaths.some((one) => one === path)
  }

  /** Paths around the HAGs, for bypassed destinations. */
  directPathsTo(destination: string): readonly Path[] {
    const paths = this.#direct[familyOfAddress(destination)]
    const now = this.#now()
    if (paths.every(({ cooldownUntil }) => cooldownUntil <= now)) return paths
    return [
      ...paths.filter(({ cooldownUntil }) => cooldownUntil <= now),
      ...paths.filter(({ cooldownUntil }) => cooldownUntil > now),
    ]
  }

  /** To be called before an attempt: the first connection after a cool-down tries the path alone, others wait for what it finds. */
  beginTrial(path: Path): void {
    if ((path as TablePath).cooldownUntil !== 0) (path as TablePath).cooldownUntil = this.#now() + cooldownMs
  }

  /** Learns from an attempt over a path that `pathsTo` gave. */
  recordOutcome(path: Path, outcome: DialOutcome): void {
    const own = path as TablePath
    if (outcome.type === 'opened') own.lostRaces = 0
    if (path.hag === undefined && outcome.type === 'opened') own.cooldownUntil = 0
    if (path.hag === undefined || outcome.type === 'closed') return
    const before = own.cooldownUntil
    // That the WAN was lost meanwhile says nothing of the HAG: once the WAN is back, connections must not go to another HAG.
    if (outcome.type === 'failed' && outcome.failure.code === 'ENETDOWN') return
    if (outcome.type === 'failed' && outcome.stage !== 'request') own.cooldownUntil = this.#now() + cooldownMs
    // A HAG that answers a request works, whatever the answer; one that fails while it serves the request tells us nothing.
    else if (outcome.type === 'opened' || outcome.reply !== undefined) own.cooldownUntil = 0
    if ((before === 0) !== (own.cooldownUntil === 0)) this.onChange()
  }

  /**
   * A connection had its answer over a later path before this one had one. Around the HAGs nobody else asks whether a WAN works while no HAG
   * answers over any.
   */
  recordLostRace(path: Path): void {
    const own = path as TablePath
    own.lostRaces += 1
    if (path.hag === undefined && own.lostRaces >= lostRacesToCoolDown) own.cooldownUntil = this.#now() + cooldownMs
  }
}

/** A WAN with another address is another path. */
function keyOf({ hag, wan, bind }: Path): string {
  return `${hag === undefined ? '' : formatSocketAddress(hag)} ${wan} ${bind}`
}
