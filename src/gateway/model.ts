/** The types that the gateway's parts share: HAGs, WAN links, paths. With one-line questions about them; no rules. */

import type { Family, SocketAddress } from '../base/address.js'
import type { Protocol } from '../engine/contract.js'

export interface ByFamily<Value> {
  readonly 4: Value
  readonly 6: Value
}

export const byFamily = <Value>(of: (family: Family) => Value): ByFamily<Value> => ({ 4: of(4), 6: of(6) })

/** A WAN, and the address of ours that its sockets are bound to. */
export interface PathAddress {
  readonly wan: string
  readonly bind: string
}

/**
 * `down`: no link, or no HAG answers over it; `probing`: it has a link and nothing is known yet; `up`; `degraded`: a probe got no answer,
 * the next ones follow at once.
 */
export type WanState = 'down' | 'probing' | 'up' | 'degraded'

/** One WAN in one family: what to bind a socket to, and its state. */
export interface WanLink extends PathAddress {
  readonly metered: boolean
  readonly state: WanState
  /** Smoothed time to connect to a HAG, milliseconds. */
  readonly rttMs: number | undefined
  /** The smallest of the last minutes. */
  readonly minRttMs: number | undefined
  /** `tcp` if the WAN's path drops what begins with MPTCP, so that trying it would only take time. */
  readonly protocol: Protocol
}

export const isUsable = ({ state }: Pick<WanLink, 'state'>): boolean => state === 'up' || state === 'degraded'

export const isSameHag = (one: Pick<Hag, 'address' | 'port'>, other: Pick<Hag, 'address' | 'port'>): boolean =>
  one.address === other.address && one.port === other.port

export interface Hag extends SocketAddress {
  username?: string
  password?: string
}

/** One path: to a HAG over a WAN or, without `hag`, to the destination itself over a WAN. */
export interface Path {
  hag?: Hag
  /** Its name. */
  wan: string
  /** The WAN's address of the family of the HAG or the destination. */
  bind: string
  /** `tcp` towards a HAG: over this WAN MPTCP would only take time. */
  protocol: Protocol
  /** The HAG takes a pipelined handshake. */
  pipelined: boolean
  /** Milliseconds after which the next path is tried beside this one. */
  patienceMs: number
  /** The WAN's smallest round trip, without queues and our own delays, milliseconds; undefined if unknown. */
  minRttMs: number | undefined
}

export type HagPath = Path & { hag: Hag }

/** The paths for new connections, best first. */
export interface Paths {
  /** To HAGs, whatever the destination. */
  readonly hagPaths: readonly HagPath[]
  /** Direct paths: for bypassed destinations and, with on_hag_down: direct, if no HAG serves. */
  readonly direct: ByFamily<readonly Path[]>
  /** The first of `hagPaths`, those over usable WANs to the first HAG that has any: connections over them may be prepared. */
  readonly preparable: readonly HagPath[]
  /** Of all HAGs. */
  readonly hagAddresses: readonly string[]
}

/**
 * Replies of HAGs without IPv6 (RFC 1928 section 6): network unreachable (3), host unreachable (4), address type unknown (8); some just say
 * 1.
 */
export const lackingReplies: readonly number[] = [1, 3, 4, 8]
