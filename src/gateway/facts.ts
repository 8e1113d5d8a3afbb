/**
 * Everything that the gateway observes, as one union. Probers, the link watch, name lookups, sessions and the role sampler report facts;
 * only state.ts and target.ts decide what a fact means. Times are milliseconds of a clock that never jumps.
 */
import type { SocketAddress } from '../base/address.js'
import type { WanAddresses } from '../network/state.js'
import type { Hag, PathAddress } from './model.js'

/** Probes of WANs. A fact about an address that no WAN has any more is ignored. */
export type WanFact =
  /** A HAG answered a probe over the WAN. `rttMs`: the time to connect. */
  | { type: 'wan-answered'; bind: string; rttMs: number }
  /**
   * No HAG answered a round of probes, and nothing else came in over the WAN either. `isSure`: a steady stream had just stopped, and several
   * probes at once went unanswered.
   */
  | { type: 'wan-silent'; bind: string; reason: string; isSure: boolean }
  /** What became of a probe with MPTCP. `blocked`: it had no answer, but a probe with TCP at the same time had one. */
  | { type: 'mptcp-seen'; bind: string; seen: 'mptcp' | 'tcp' | 'blocked' }
  /** Whether full-size packets pass. */
  | { type: 'full-size-seen'; bind: string; passes: boolean }

/** Probes of HAGs, whoever sent them. A fact about a HAG that is no longer in the list is ignored. */
export type HagFact =
  /** It is asked for a greeting, or for a whole CONNECT over one WAN or several. */
  | { type: 'hag-asked'; hag: Hag; about: 'greeting' | 'request' }
  /** It is asked for a CONNECT from this address. */
  | { type: 'admission-asked'; hag: Hag; bind: string }
  | { type: 'hag-answered'; hag: Hag; path: PathAddress }
  | HagSilent
  /** ECONNREFUSED: the HAG's machine answers, its program does not run. */
  | { type: 'hag-refused'; hag: Hag }
  /** The probe could not leave (EADDRNOTAVAIL, ENETUNREACH, EINVAL): that says nothing about the HAG. */
  | { type: 'hag-not-asked'; hag: Hag }
  /** The HAG is there, but does not serve this address of ours. `closes`: it just ends the connection. */
  | { type: 'hag-turned-away'; hag: Hag; path: PathAddress; how: 'stranger' | 'closes' }
  /** At the start it was probed over every WAN, and answered over none. */
  | { type: 'hag-unreachable'; hag: Hag; reason: string }
  /**
   * It answered a CONNECT. `isRefused`: with the reply 2 (RFC 1928, not allowed), which others do not get. `pipelines`: it takes greeting,
   * request and payload at once; undefined if that could not be found out.
   */
  | { type: 'hag-request-answered'; hag: Hag; path: PathAddress; isRefused: boolean; pipelines: boolean | undefined }
  /** It answers greetings, but not requests, over any WAN. */
  | { type: 'hag-request-broken'; hag: Hag; reason: string }
  /** It could not be asked for a CONNECT over any WAN. */
  | { type: 'hag-request-unknown'; hag: Hag }
  /** Its answer about an IPv6 destination: a user is connected to one, or it can reach the destination, or not. */
  | { type: 'hag-ipv6-asked'; hag: Hag; destination: SocketAddress }
  | { type: 'hag-ipv6-answered'; hag: Hag; verdict: 'serves-user' | 'reaches' | 'lacks' }

/** A probe had no answer, or no proper one. */
export interface HagSilent {
  type: 'hag-silent'
  hag: Hag
  reason: string
  askedAt: number
  /** When the wait was over. `isBehindFullWan` was found out after that. */
  silentAt: number
  /** It accepted the connection and then was silent, so the path to it works. */
  hasConnected: boolean
  /** It was ETIMEDOUT: a full queue may be the reason. */
  hasTimedOut: boolean
  /** The probe waited long enough even for a full up-link (a third SYN, after 3 s). */
  isPatient: boolean
  /** Its connections over a full WAN are acknowledged; only packets of new connections get lost. */
  isBehindFullWan: boolean
}

/** What users' connections met. */
export type ConnectionFact =
  | { type: 'hag-trouble'; hag: Hag; about: 'connection' | 'request' }
  /** The HAG replied to a user's request that it is not allowed (RFC 1928 section 6, reply 2). */
  | { type: 'request-refused'; hag: Hag; path: PathAddress }
  /** Found out because of such refusals: whether it serves another user's connection over the same WAN. */
  | { type: 'users-served'; hag: Hag; path: PathAddress; isAnyServed: boolean }
  /** A connection into the Internet that should have used a HAG was answered without one. */
  | { type: 'direct-answered'; path: PathAddress }
  /** A connection with MPTCP became plain TCP, or had no answer while another path had one. */
  | { type: 'mptcp-fell-back'; bind: string }
  /** The HAG could not reach a user's IPv6 destination. */
  | { type: 'ipv6-unreachable'; hag: Hag; destination: SocketAddress }

/** The machine, the names and the clock. */
export type MachineFact =
  /** A pass of the network set-up found that these WANs have a link, an address and a gateway. */
  | { type: 'wans-planned'; wans: readonly WanAddresses[] }
  /** The kernel reported it, before any pass. `what`: "has no carrier" and the like. */
  | { type: 'link-gone'; interface: string; what: string }
  | { type: 'address-gone'; address: string }
  /** Best first, without regard to families; among HAGs of one priority any family may be preferred. */
  | { type: 'hags-changed'; hags: readonly RankedHag[] }
  /** Once a second while clients are active, if there are WANs to choose from: bytes a second of each WAN, and the WANs whose monthly volume is used up. */
  | { type: 'rates-sampled'; rates: ReadonlyMap<string, Rates>; exhausted: ReadonlySet<string> }
  /** Connections have only the other WAN: the endpoint of this address has to be deleted and made again. */
  | { type: 'endpoint-to-remake'; bind: string }
  /** A pass has deleted it. */
  | { type: 'endpoint-removed'; bind: string }
  /** Time has passed. */
  | { type: 'tick' }

export interface RankedHag {
  readonly hag: Hag
  /** HAGs with equal texts are of one priority. */
  readonly priority: string
}

export interface Rates {
  readonly receivedPerSecond: number
  readonly sentPerSecond: number
}

export type Fact = WanFact | HagFact | ConnectionFact | MachineFact
