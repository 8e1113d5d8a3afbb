/** Asks HAGs whether they reach IPv6 destinations, and reports their replies. Steering decides what they mean and when to ask. */
import { familyOfAddress, isInside, parseCidr, type SocketAddress } from '../../base/address.js'
import { pause } from '../../base/pause.js'
import type { Engine } from '../../engine/contract.js'
import type { HagFact } from '../facts.js'
import type { Hag } from '../model.js'
import { type Reply, replyTo } from './capabilities.js'
import { serves } from './users.js'

const timeoutMs = 2000
/** Short, because nobody is redirected before, and a firewall may drop the answer. */
const firstTimeoutMs = 1000
/** RFC 4291 section 2.4: the addresses that are routed in the Internet. */
const globalUnicast = [parseCidr('2000::/3')].filter((one) => one !== undefined)
/** An address of a documentation network (RFC 3849). A machine without IPv6 refuses it at once. */
const nobody: SocketAddress = { address: '2001:db8::1', port: 1 }
/** The same as `lackingReplies`, in the words of the package socks. */
const lacking: readonly Reply[] = ['NetworkUnreachable', 'HostUnreachable', 'AddressNotSupported', 'Failure']
/**
 * Replies that only a HAG without IPv6 gives. Not "host unreachable", which a router near our address may cause, nor 1, which some HAGs
 * always say.
 */
const surelyLacking: readonly Reply[] = ['NetworkUnreachable', 'AddressNotSupported']

export interface Ipv6Options {
  engine: Pick<Engine, 'connect' | 'inspect' | 'stats'>
  /** HAGs in use, best first. */
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

  /** For the start, before anybody is redirected. A HAG may have answered a moment before its WAN counts as working. */
  async begin(): Promise<void> {
    const { hags, isReachable } = this.#options
    const isAskable = hags().length > 0 && this.#ownAddress !== undefined
    for (let waits = 0; waits < 20 && isAskable && !hags().some(isReachable); waits++) await pause(25)
    await this.look()
  }

  get #ownAddress(): SocketAddress | undefined {
    return this.#options.own().find(({ address }) => isInside(address, globalUnicast))
  }

  /** Asks HAGs of which nothing is known, and those without IPv6 whether they have it again. To be called every second. */
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

  /** The HAG could not reach a user's destination. Finds out whether the destination or the HAG is the reason. */
  async lookInto(hag: Hag): Promise<void> {
    const question = this.#options.question(hag)
    if (question?.about !== 'nobody') return
    this.#reportAsked(hag, nobody)
    // A user's connection proves that it can. A redirected client has the family of its destination.
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
