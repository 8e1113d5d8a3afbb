/** Which HAG serves us over which WAN: it may know one of our addresses and refuse another. Facts in; what is news goes to the log. */
import { formatSocketAddress } from '../../base/address.js'
import type { Log } from '../../telemetry/log.js'
import type { Hag, PathAddress, WanPath } from '../model.js'

/** Users' requests in a row that a HAG refused, before its refusal of what we ask is taken for one of us. */
const refusalsToTell = 3
/** A refusal that only users' requests tell of is doubted again: their destinations may have been strange ones. */
const trustMs = 5 * 60_000
/** How often one that refuses us is asked again, and one of which nothing is known yet. */
const againMs = { refused: 10_000, unknown: 30_000, metered: 15 * 60_000 }

interface Pair {
  /** Whether it has served a question that would not have been served for somebody else. */
  serves: boolean | undefined
  /** Users' requests that were refused since one was served. */
  refusals: number
  askedAt: number
  /** It refuses us: since when, and where we have heard that. */
  refused: { at: 'greeting' | 'request'; since: number; isSure: boolean } | undefined
  said: string
}

export class Admissions {
  readonly #pairs = new Map<string, Pair>()
  readonly #log: Pick<Log, 'info' | 'warn'>
  readonly #onChange: () => void
  readonly #now: () => number

  constructor(options: { log: Pick<Log, 'info' | 'warn'>; onChange(): void; now?: () => number }) {
    this.#log = options.log
    this.#onChange = options.onChange
    this.#now = options.now ?? (() => performance.now())
  }

  refuses(hag: Hag, bind: string): boolean {
    return this.#pairs.get(keyOf(hag, bind))?.refused !== undefined
  }

  /** It is to be asked whether it serves us there. */
  isDue(hag: Hag, { bind, metered }: Pick<WanPath, 'bind' | 'metered'>): boolean {
    const pair = this.#pairs.get(keyOf(hag, bind))
    if (pair === undefined) return true
    // Its rules may have changed.
    const isDoubtful = pair.serves === undefined || (pair.serves && pair.refusals >= refusalsToTell)
    if (pair.refused === undefined && !isDoubtful) return false
    return this.#now() - pair.askedAt >= (metered ? againMs.metered : againMs[pair.refused ? 'refused' : 'unknown'])
  }

  asks(hag: Hag, bind: string): void {
    this.#pair(hag, bind).askedAt = this.#now()
  }

  /** Before anything was asked for. */
  turnedAway(hag: Hag, path: PathAddress, why: string): void {
    this.#refuse(hag, path, { at: 'greeting', isSure: true }, why)
  }

  greeted(hag: Hag, path: PathAddress): void {
    if (this.#pairs.get(keyOf(hag, path.bind))?.refused?.at === 'greeting') this.#admit(hag, path)
  }

  /** It answered a request of ours, to which others get another answer than that it is not allowed. */
  answered(hag: Hag, path: PathAddress, isRefused: boolean): void {
    const pair = this.#pair(hag, path.bind)
    pair.serves = !isRefused
    if (!isRefused) this.#admit(hag, path)
    else if (pair.refused?.isSure === false && this.#now() - pair.refused.since >= trustMs) {
      pair.refusals = 0
      pair.refused = undefined
      this.#onChange()
    } else this.#judge(hag, path)
  }

  /** A user's request was served there. */
  served(hag: Hag, path: PathAddress): void {
    this.#pair(hag, path.bind).refusals = 0
  }

  /** A user's request was refused there. True where that is enough to `confirm`. */
  requestRefused(hag: Hag, path: PathAddress): boolean {
    const pair = this.#pair(hag, path.bind)
    pair.refusals += 1
    return pair.refusals >= refusalsToTell && pair.serves === false && pair.refused === undefined
  }

  /** To be called where no user is served there either. */
  confirm(hag: Hag, path: PathAddress): void {
    this.#judge(hag, path)
  }

  /** Forgets all others. */
  keep(hags: readonly Hag[]): void {
    const names = hags.map((hag) => keyOf(hag, ''))
    for (const key of this.#pairs.keys()) if (!names.some((name) => key.startsWith(name))) this.#pairs.delete(key)
  }

  /** That one question is refused may be a rule about its destination; of us it speaks where the same HAG answers it elsewhere. */
  #judge(hag: Hag, path: PathAddress): void {
    const pair = this.#pair(hag, path.bind)
    if (pair.serves !== false) return
    const prefix = keyOf(hag, '')
    const isServedElsewhere = [...this.#pairs].some(([key, { serves }]) => key.startsWith(prefix) && serves === true)
    if (!isServedElsewhere && pair.refusals < refusalsToTell) return
    const why = 'it refuses every request (reply 2): let its rules allow this address'
    this.#refuse(hag, path, { at: 'request', isSure: isServedElsewhere }, why)
  }

  #refuse(hag: Hag, path: PathAddress, how: { at: 'greeting' | 'request'; isSure: boolean }, why: string): void {
    const pair = this.#pair(hag, path.bind)
    const isNews = pair.refused === undefined
    pair.refused = { ...how, since: pair.refused?.since ?? this.#now() }
    if (pair.said !== why) this.#log.warn(`HAG ${formatSocketAddress(hag)} refuses us over WAN ${whereOf(path)}: ${why}`)
    pair.said = why
    if (isNews) this.#onChange()
  }

  #admit(hag: Hag, path: PathAddress): void {
    const pair = this.#pair(hag, path.bind)
    const isNews = pair.refused !== undefined
    pair.refused = undefined
    pair.refusals = 0
    if (pair.said !== '') this.#log.info(`HAG ${formatSocketAddress(hag)} serves us over WAN ${whereOf(path)}`)
    pair.said = ''
    if (isNews) this.#onChange()
  }

  #pair(hag: Hag, bind: string): Pair {
    const key = keyOf(hag, bind)
    let pair = this.#pairs.get(key)
    if (pair === undefined) {
      pair = { serves: undefined, refusals: 0, askedAt: Number.NEGATIVE_INFINITY, refused: undefined, said: '' }
      this.#pairs.set(key, pair)
    }
    return pair
  }
}

const keyOf = (hag: Hag, bind: string) => `${formatSocketAddress(hag)} ${bind}`

/** For people: they compare the address with the HAG's rules. */
export const whereOf = ({ wan, bind }: PathAddress) => `${wan}, from ${bind}`
