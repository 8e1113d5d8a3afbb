import { familyOfAddress, formatSocketAddress, isInside, parseCidr, type SocketAddress } from '../../base/address.js'
import { pause } from '../../base/pause.js'
/**
 * Can a HAG reach IPv6 destinations? Where none can, redirected connections would be accepted and then reset, which no Happy Eyeballs of a client
 * (RFC 8305) gets over. Where this gateway has a public IPv6 address a HAG is asked for that before anybody is redirected; and it is learned
 * from what HAGs reply to users' requests, because only those ask for real destinations.
 */
import type { Engine } from '../../engine/contract.js'
import type { Log } from '../../telemetry/log.js'
import type { Hag, WanPath } from '../model.js'
import { type Reply, replyTo } from './capabilities.js'

/** Users' requests in a row, before a HAG is asked what is wrong. */
const refusalsToAsk = 2
const askMs = { free: 10_000, metered: 15 * 60_000 }
/** Users' requests try again, in case that those destinations are there for nobody: so long after the first time, then twice as long each time. */
const firstTrialMs = 5 * 60_000
const longestTrialMs = 60 * 60_000
const timeoutMs = 2000
/** Nobody is redirected meanwhile, and a firewall on the way may leave us without an answer. */
const firstTimeoutMs = 1000
/** RFC 4291 section 2.4: what is routed in the Internet. */
const globalUnicast = [parseCidr('2000::/3')].filter((one) => one !== undefined)
/** What is older says nothing of now. */
const recentMs = 60_000
/** An address of a documentation network (RFC 3849): without any IPv6 a machine says so at once. */
const nobody: SocketAddress = { address: '2001:db8::1', port: 1 }
/** The same as `lackingReplies`, in the words of the package socks. */
const lacking: readonly Reply[] = ['NetworkUnreachable', 'HostUnreachable', 'AddressNotSupported', 'Failure']
/** What nobody else says: a router next to our address may say that it is unreachable, and some HAGs say 1 whatever it is. */
const surelyLacking: readonly Reply[] = ['NetworkUnreachable', 'AddressNotSupported']

interface Carriage {
  refusals: number
  /** Where the last of them wanted to go. */
  destination: SocketAddress
  lacks: boolean
  askedAt: number
  trialMs: number
  trialAt: number
}

export interface Ipv6Options {
  engine: Pick<Engine, 'connect' | 'inspect' | 'stats'>
  /** Those in use, best first. */
  hags(): readonly Hag[]
  /** Over which to ask a HAG. */
  pathTo(hag: Hag): Pick<WanPath, 'bind' | 'metered'> | undefined
  /** IPv6 addresses of this gateway's WANs, with a port that refuses connections. */
  own(): readonly SocketAddress[]
  log: Pick<Log, 'info'>
  onChange(): void
  /** Tests pass their own. */
  ask?: typeof replyTo
  now?: () => number
}

export class Ipv6 {
  readonly #options: Ipv6Options
  readonly #ask: typeof replyTo
  readonly #now: () => number
  readonly #carriages = new Map<Hag, Carriage>()

  constructor(options: Ipv6Options) {
    this.#options = options
    this.#ask = options.ask ?? replyTo
    this.#now = options.now ?? (() => performance.now())
  }

  /** False where no HAG in use can reach IPv6 destinations. */
  get isCarried(): boolean {
    const hags = this.#options.hags()
    return hags.length === 0 || hags.some((hag) => this.#carriages.get(hag)?.lacks !== true)
  }

  /** A HAG has found no way to a user's IPv6 destination. */
  async refused(hag: Hag, destination: SocketAddress): Promise<void> {
    const now = this.#now()
    const one = this.#carriageOf(hag, destination)
    one.refusals += 1
    one.destination = destination
    const path = this.#options.pathTo(hag)
    if (one.lacks || one.refusals < refusalsToAsk || path === undefined || now - one.askedAt < 1000) return
    one.askedAt = now
    // Somebody's connection proves that it can.
    if (await this.#isRelaying(hag)) {
      one.refusals = 0
      return
    }
    if (await this.#finds(hag, path.bind, nobody)) return
    this.#dismiss(one)
  }

  #carriageOf(hag: Hag, destination: SocketAddress): Carriage {
    const fresh = { refusals: 0, lacks: false, askedAt: Number.NEGATIVE_INFINITY, trialMs: firstTrialMs, trialAt: 0 }
    const one = this.#carriages.get(hag) ?? { ...fresh, destination }
    this.#carriages.set(hag, one)
    return one
  }

  /** Before anybody is redirected. The WAN over which a HAG has just been heard is found to work a moment later. */
  async begin(): Promise<void> {
    const isReady = () => this.#options.hags().some((hag) => this.#options.pathTo(hag) !== undefined)
    const isAskable = this.#options.hags().length > 0 && this.#destination !== undefined
    for (let waits = 0; waits < 20 && isAskable && !isReady(); waits++) await pause(25)
    await this.look()
  }

  get #destination(): SocketAddress | undefined {
    return this.#options.own().find(({ address }) => isInside(address, globalUnicast))
  }

  /** Until the signal: asks those of which nothing is known, and those that cannot whether they can again. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(1000, signal)
      if (!signal.aborted) await this.look()
    }
  }

  async look(): Promise<void> {
    for (const hag of this.#carriages.keys()) if (!this.#options.hags().includes(hag)) this.#carriages.delete(hag)
    const lacking = [...this.#carriages].filter(([, { lacks }]) => lacks)
    const fresh = this.#options.hags().filter((hag) => familyOfAddress(hag.address) === 4 && !this.#carriages.has(hag))
    await Promise.all([...lacking.map(([hag, one]) => this.#lookAt(hag, one)), ...fresh.map((hag) => this.#askFirst(hag))])
  }

  /** One that is reached by IPv6 has it. */
  async #askFirst(hag: Hag): Promise<void> {
    const path = this.#options.pathTo(hag)
    const destination = this.#destination
    if (path === undefined || destination === undefined) return
    const one = this.#carriageOf(hag, destination)
    one.askedAt = this.#now()
    const reply = await this.#ask(this.#options.engine, { hag, bind: path.bind }, { destination, timeoutMs: firstTimeoutMs })
    if (reply !== undefined && surelyLacking.includes(reply)) this.#dismiss(one)
  }

  async #lookAt(hag: Hag, one: Carriage): Promise<void> {
    const path = this.#options.pathTo(hag)
    if (path === undefined) return
    const now = this.#now()
    if (now >= one.trialAt) return this.#admit(one)
    if (now - one.askedAt < askMs[path.metered ? 'metered' : 'free']) return
    one.askedAt = now
    if (!(await this.#finds(hag, path.bind, one.destination))) return
    one.trialMs = firstTrialMs
    this.#options.log.info(`HAG ${formatSocketAddress(hag)} reaches IPv6 destinations again`)
    this.#admit(one)
  }

  #dismiss(one: Carriage): void {
    one.lacks = true
    one.trialAt = this.#now() + one.trialMs
    one.trialMs = Math.min(2 * one.trialMs, longestTrialMs)
    this.#options.onChange()
  }

  #admit(one: Carriage): void {
    one.lacks = false
    one.refusals = 0
    this.#options.onChange()
  }

  /** Or it does not say in time. */
  async #finds(hag: Hag, bind: string, destination: SocketAddress): Promise<boolean> {
    const reply = await this.#ask(this.#options.engine, { hag, bind }, { destination, timeoutMs })
    return destination === nobody
      ? reply === undefined || !lacking.includes(reply)
      : reply !== undefined && !lacking.includes(reply)
  }

  /** A client of the redirector has its destination's family. */
  async #isRelaying(hag: Hag): Promise<boolean> {
    const { engine } = this.#options
    if (engine.stats().relaying === 0) return false
    const isTo = ({ remote }: { remote: SocketAddress }) => remote.address === hag.address && remote.port === hag.port
    return (await engine.inspect()).some(
      (one) => isTo(one) && one.received > 0 && one.ageMs < recentMs && familyOfAddress(one.client.address) === 6,
    )
  }
}
