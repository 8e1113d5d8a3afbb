/** Asks HAGs whether they reach IPv6 destinations, and reports what they reply. What that means, and when to ask, is decided elsewhere. */
import { familyOfAddress, isInside, parseCidr, type SocketAddress } from '../../base/address.js'
import { pause } from '../../base/pause.js'
import type { Engine } from '../../engine/contract.js'
import type { HagFact } from '../facts.js'
import type { Hag } from '../model.js'
import { type Reply, replyTo } from './capabilities.js'
import { serves } from './users.js'

const timeoutMs = 2000
/** Nobody is redirected meanwhile, and a firewall on the way may leave us without an answer. */
const firstTimeoutMs = 1000
/** RFC 4291 section 2.4: what is routed in the Internet. */
const globalUnicast = [parseCidr('2000::/3')].filter((one) => one !== undefined)
/** An address of a documentation network (RFC 3849): without any IPv6 a machine says so at once. */
const nobody: SocketAddress = { address: '2001:db8::1', port: 1 }
/** The same as `lackingReplies`, in the words of the package socks. */
const lacking: readonly Reply[] = ['NetworkUnreachable', 'HostUnreachable', 'AddressNotSupported', 'Failure']
/** What nobody else says: a router next to our address may say that it is unreachable, and some HAGs say 1 whatever it is. */
const surelyLacking: readonly Reply[] = ['NetworkUnreachable', 'AddressNotSupported']

export interface Ipv6Options {
  engine: Pick<Engine, 'connect' | 'inspect' | 'stats'>
  /** Those in use, best first. */
  hags(): readonly Hag[]
  /** Whether there is a WAN over which to ask it. */
  isReachable(hag: Hag): boolean
  /** What it is to be asked for now, and from which address; `nobody`: an address that nobody has. */
  question(hag: Hag): { bind: string; about: SocketAddress | 'own-address' | 'nobody' } | undefined
  /** IPv6 addresses of this gateway's WANs, with a port that refuses connections. */
  own(): readonly SocketAddress[]
  report(fact: HagFact): void
  /** Tests pass their own. */
  ask?: typeof replyTo
}

export class Ipv6 {
  readonly #options: Ipv6Options
  readonly #ask: typeof replyTo

  constructor(options: Ipv6Options) {
    this.#options = options
    this.#ask = options.ask ?? replyTo
  }

  /** Before anybody is redirected. The WAN over which a HAG has just been heard is found to work a moment later. */
  async begin(): Promise<void> {
    const { hags, isReachable } = this.#options
    const isAskable = hags().length > 0 && this.#ownAddress !== undefined
    for (let waits = 0; waits < 20 && isAskable && !hags().some(isReachable); waits++) await pause(25)
    await this.look()
  }

  get #ownAddress(): SocketAddress | undefined {
    return this.#options.own().find(({ address }) => isInside(address, globalUnicast))
  }

  /** Asks those of which nothing is known, and those that cannot whether they can again. To be called every second. */
  async look(): Promise<void> {
    await Promise.all(this.#options.hags().map((hag) => this.#lookAt(hag)))
  }

  async #lookAt(hag: Hag): Promise<void> {
    const question = this.#options.question(hag)
    if (question === undefined || question.about === 'nobody') return
    const { bind, about } = question
    if (about !== 'own-address') {
      this.#reportAsked(hag, about)
      const reply = await this.#replyTo(hag, bind, about, timeoutMs)
      return this.#reportVerdict(hag, reply !== undefined && !lacking.includes(reply) ? 'reaches' : 'lacks')
    }
    const destination = this.#ownAddress
    if (destination === undefined) return
    this.#reportAsked(hag, destination)
    const reply = await this.#replyTo(hag, bind, destination, firstTimeoutMs)
    this.#reportVerdict(hag, reply !== undefined && surelyLacking.includes(reply) ? 'lacks' : 'reaches')
  }

  /** It has found no way to a user's destination. Is there one to nowhere, or is it the HAG? */
  async lookInto(hag: Hag): Promise<void> {
    const question = this.#options.question(hag)
    if (question?.about !== 'nobody') return
    this.#reportAsked(hag, nobody)
    // Somebody's connection proves that it can. A client of the redirector has its destination's family.
    if (await serves(this.#options.engine, hag, ({ client }) => familyOfAddress(client.address) === 6))
      return this.#reportVerdict(hag, 'serves-user')
    const reply = await this.#replyTo(hag, question.bind, nobody, timeoutMs)
    this.#reportVerdict(hag, reply !== undefined && lacking.includes(reply) ? 'lacks' : 'reaches')
  }

  #replyTo(hag: Hag, bind: string, destination: SocketAddress, timeoutMs: number): Promise<Reply | undefined> {
    return this.#ask(this.#options.engine, { hag, bind }, { destination, timeoutMs })
  }

  #reportAsked(hag: Hag, destination: SocketAddress): void {
    this.#options.report({ type: 'hag-ipv6-asked', hag, destination })
  }

  #reportVerdict(hag: Hag, verdict: 'serves-user' | 'reaches' | 'lacks'): void {
    this.#options.report({ type: 'hag-ipv6-answered', hag, verdict })
  }
}
