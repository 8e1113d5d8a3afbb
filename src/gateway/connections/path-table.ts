/** The paths to a destination, best first, and the outcomes of connections that tried them. */
import { familyOfAddress, formatSocketAddress } from '../../base/address.js'
import type { DialOutcome } from '../../engine/race.js'
import { type ByFamily, byFamily, type HagPath, type Path, type Paths } from '../model.js'

/** How long a path that failed comes last, so that not every new connection loses time until the probers know. */
const cooldownMs = 5000
/** A direct path that lost so many races in a row comes last. One lost SYN says nothing about a WAN. */
const lostRacesToCoolDown = 2

interface Memory {
  /** Until then other paths come first; 0 while it works. */
  cooldownUntil: number
  /** How many connections in a row had their answer over a later path. */
  lostRaces: number
}

type TablePath = Path & Memory

export class PathTable {
  readonly #listeners: (() => void)[] = []
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

  /** `listener` is called when `fastPath` may have changed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** To be called after every change. Paths that stay keep their outcomes. */
  use({ hagPaths, direct, preparable, hagAddresses }: Paths): void {
    const known = new Map<string, TablePath>()
    // The same objects, so that attempts under way record their outcomes on the paths in use.
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
    this.#changed()
  }

  #changed(): void {
    for (const listener of this.#listeners) listener()
  }

  /** The path to a HAG that comes first for every destination; undefined if it depends on the connection. */
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

  /** A connection to a HAG's own machine, for its other services. */
  isHag(destination: string): boolean {
    return this.#hagAddresses.has(destination)
  }

  /** The paths to the HAG in use over WANs that work, best first: those for which to prepare connections. */
  get preparable(): readonly HagPath[] {
    return this.#preparable
  }

  /** True for a path to a HAG that `pathsTo` no longer returns. */
  isGone(path: Path): boolean {
    return path.hag !== undefined && !this.#hagPaths.some((one) => one === path)
  }

  /** Direct paths, for bypassed destinations. */
  directPathsTo(destination: string): readonly Path[] {
    const paths = this.#direct[familyOfAddress(destination)]
    const now = this.#now()
    if (paths.every(({ cooldownUntil }) => cooldownUntil <= now)) return paths
    return [
      ...paths.filter(({ cooldownUntil }) => cooldownUntil <= now),
      ...paths.filter(({ cooldownUntil }) => cooldownUntil > now),
    ]
  }

  /**
   * To be called before an attempt: after a cool-down only the first connection tries the path; it stays last for the others until the
   * outcome.
   */
  beginTrial(path: Path): void {
    if ((path as TablePath).cooldownUntil !== 0) (path as TablePath).cooldownUntil = this.#now() + cooldownMs
  }

  /** Records the outcome of an attempt over a path that `pathsTo` returned. */
  recordOutcome(path: Path, outcome: DialOutcome): void {
    const own = path as TablePath
    if (outcome.type === 'opened') own.lostRaces = 0
    if (path.hag === undefined && outcome.type === 'opened') own.cooldownUntil = 0
    if (path.hag === undefined || outcome.type === 'closed') return
    const before = own.cooldownUntil
    // If the WAN was lost meanwhile, that says nothing about the HAG: after it is back, connections must not go to another HAG.
    if (outcome.type === 'failed' && outcome.failure.code === 'ENETDOWN') return
    if (outcome.type === 'failed' && outcome.stage !== 'request') own.cooldownUntil = this.#now() + cooldownMs
    // A HAG that answers a request works, whatever the answer. If it fails while it serves the request, that tells nothing.
    else if (outcome.type === 'opened' || outcome.reply !== undefined) own.cooldownUntil = 0
    if ((before === 0) !== (own.cooldownUntil === 0)) this.#changed()
  }

  /**
   * A connection had its answer over a later path first. Counted for direct paths, because nobody probes WANs for them while no HAG answers
   * over any.
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
