/** What is known of the HAGs, from the connections themselves and from a probe at the start; and the order in which to try them. */
import type { Engine, Failure } from '../native/index.js'
import { formatSocketAddress } from '../shared/address.js'
import type { Outcome } from '../shared/attempts.js'
import { hagProbe } from '../shared/hag-probe.js'
import type { Log } from '../telemetry/log.js'
import { directPaths, type Hag, hagPaths, type Path, type Wan } from './policy.js'

/** How long a path that failed is tried last, so that not every new connection pays for its timeout. */
const restMs = 5000
const probeAnswerMs = 5000

type HagState = 'unknown' | 'reachable' | 'unreachable' | 'refused'

interface HagPath extends Path {
  hag: Hag
  state: HagState
  /** Why it is not reachable. */
  reason: string
  /** Until then others come first; 0 while it works. */
  restsUntil: number
}

export interface UpstreamOptions {
  hags: readonly Hag[]
  wans: readonly Wan[]
  onHagDown: 'direct' | 'reject'
  connectTimeoutMs: number
  log: Log
  now?: () => number
}

export class Upstreams {
  readonly #options: UpstreamOptions
  readonly #now: () => number
  #paths: HagPath[] = []
  #direct: { 4: readonly Path[]; 6: readonly Path[] } = { 4: [], 6: [] }
  #all: { 4: readonly Path[]; 6: readonly Path[] } = { 4: [], 6: [] }

  constructor(options: UpstreamOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.useWans(options.wans)
  }

  /** The WANs and addresses to use from now on. What is known of a path that stays is kept; a new one counts as untried. */
  useWans(wans: readonly Wan[]): void {
    const known = new Map(this.#paths.map((path) => [keyOf(path), path]))
    this.#paths = hagPaths(this.#options.hags, wans).map(
      (path) => known.get(keyOf(path)) ?? { ...path, state: 'unknown', reason: '', restsUntil: 0 },
    )
    const direct = (destination: string) => directPaths(destination, wans)
    this.#direct = { 4: direct('0.0.0.0'), 6: direct('::') }
    const fallback = this.#options.onHagDown === 'direct' ? this.#direct : { 4: [], 6: [] }
    this.#all = { 4: [...this.#paths, ...fallback[4]], 6: [...this.#paths, ...fallback[6]] }
  }

  /** The ways to a destination, best first: HAGs that work, then direct or, where that is not wanted, the HAGs that failed lately. */
  ways(destination: string): readonly Path[] {
    const family = destination.includes(':') ? 6 : 4
    if (this.#paths.every(({ restsUntil }) => restsUntil === 0)) return this.#all[family]
    const now = this.#now()
    const ready: Path[] = []
    const resting: Path[] = []
    for (const path of this.#paths) {
      if (path.restsUntil > now) resting.push(path)
      else ready.push(path)
    }
    return [...ready, ...(this.#options.onHagDown === 'direct' ? this.#direct[family] : resting)]
  }

  /** Ways around the HAGs, for bypassed destinations. */
  direct(destination: string): readonly Path[] {
    return this.#direct[destination.includes(':') ? 6 : 4]
  }

  /** To be called before an attempt: the first connection after a rest tries the path alone, others wait for what it finds. */
  trying(path: Path): void {
    if (path.hag !== undefined && (path as HagPath).restsUntil !== 0) (path as HagPath).restsUntil = this.#now() + restMs
  }

  /** Learns from an attempt over a path that `ways` gave. */
  saw(path: Path, outcome: Outcome): void {
    if (path.hag === undefined || outcome.type === 'closed') return
    if (outcome.type === 'failed' && outcome.stage !== 'request') this.#failed(path as HagPath, outcome.stage, outcome.failure)
    // A HAG that answers a request works, whatever the answer; one that fails while it serves the request tells us nothing.
    else if (outcome.type === 'opened' || outcome.reply !== undefined) this.#worked(path as HagPath)
  }

  /** Asks every HAG over every WAN for a sign of life, all at once; resolves when all have answered or timed out. */
  async probe(engine: Engine): Promise<void> {
    await Promise.all(
      this.#paths.map(async (path) => {
        const probe = hagProbe(path, {
          protocol: 'mptcp',
          connectTimeoutMs: this.#options.connectTimeoutMs,
          timeoutMs: probeAnswerMs,
        })
        const result = await engine.probe(probe)
        if (result.ok) this.#worked(path, result.protocol)
        else this.#failed(path, result.stage, result.failure)
      }),
    )
  }

  /** `refused`: every HAG that answered wants other credentials. The reasons are for one line of text. */
  summary(): { state: 'some' | 'none' | 'refused'; reasons: string } {
    const reasons = this.#paths.map((path) => `${name(path)} ${path.reason}`).join('; ')
    if (this.#paths.some(({ state }) => state === 'reachable' || state === 'unknown')) return { state: 'some', reasons }
    const hags = new Set(this.#paths.map(({ hag }) => hag))
    const refusing = new Set(this.#paths.filter(({ state }) => state === 'refused').map(({ hag }) => hag))
    return {
      state: hags.size > 0 && hags.size === refusing.size ? 'refused' : 'none',
      reasons: reasons || 'no WAN has an address of their family',
    }
  }

  #worked(path: HagPath, protocol?: string): void {
    path.restsUntil = 0
    if (path.state === 'reachable') return
    this.#change(path, 'reachable', '')
    const plain = protocol === 'tcp' ? ', but only with plain TCP: no bonding' : ''
    this.#options.log.info(`${name(path)} is reachable${plain}`, { hag: formatSocketAddress(path.hag), wan: path.wan.name })
  }

  #failed(path: HagPath, stage: string, failure: Failure): void {
    path.restsUntil = this.#now() + restMs
    const refused = stage === 'authentication' || (stage === 'greeting' && failure.code === 'EACCES')
    const state = refused ? 'refused' : 'unreachable'
    if (path.state === state) return
    this.#change(path, state, refused ? refusedText(path.hag) : `is unreachable: ${reasonOf(stage, failure)}`)
    this.#options.log.warn(`${name(path)} ${path.reason}`, {
      hag: formatSocketAddress(path.hag),
      wan: path.wan.name,
      stage,
      code: failure.code,
    })
  }

  #change(path: HagPath, state: HagState, reason: string): void {
    path.state = state
    path.reason = reason
  }
}

/** A WAN with another address is another path. */
function keyOf({ hag, wan, bind }: Path & { hag: Hag }): string {
  return `${formatSocketAddress(hag)} ${wan.name} ${bind}`
}

function name({ hag, wan }: Path & { hag: Hag }): string {
  return `HAG ${formatSocketAddress(hag)} over ${wan.name}`
}

function refusedText(hag: Hag): string {
  return hag.username === undefined ? 'asks for a user name and password' : 'refuses the user name or password'
}

function reasonOf(stage: string, failure: Failure): string {
  const known: Record<string, string> = {
    ETIMEDOUT: stage === 'connect' ? 'no answer' : 'connected, but it does not answer',
    ECONNREFUSED: 'connection refused, nothing listens there',
    ENETUNREACH: 'no route to it',
    EHOSTUNREACH: 'no route to it',
    EADDRNOTAVAIL: 'the WAN has lost its address',
    ECONNRESET: 'it closed the connection',
    EPROTO: 'it does not speak SOCKS5',
  }
  const text = known[failure.code]
  return text === undefined ? `${failure.code} in ${failure.syscall}` : `${text} (${failure.code})`
}
