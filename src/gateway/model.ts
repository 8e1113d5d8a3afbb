/** What the parts of the gateway talk about: HAGs, WAN links, paths. Types and one-line questions to them; no rule. */
import type { Protocol } from '../native/index.js'
import type { Hag } from '../redirect/policy.js'
import type { Family } from '../shared/address.js'
import type { WanState } from '../wan/health.js'

export type { Hag, Path } from '../redirect/policy.js'

export interface ByFamily<Value> {
  readonly 4: Value
  readonly 6: Value
}

export const families: readonly Family[] = [4, 6]

export const byFamily = <Value>(of: (family: Family) => Value): ByFamily<Value> => ({ 4: of(4), 6: of(6) })

/** A WAN as the network set-up has planned it: it has a link, and these addresses. */
export interface WanAddresses {
  readonly name: string
  readonly interface: string
  readonly address4?: string
  readonly address6?: string
}

/** A WAN, and the address of ours that its sockets are bound to. */
export interface PathAddress {
  readonly wan: string
  readonly bind: string
}

/** One WAN in one family: what a socket is bound to, and how well it does. */
export interface WanLink extends PathAddress {
  readonly metered: boolean
  /** `down`: it has a link, but carries nothing. `probing`: nothing is known yet. */
  readonly state: WanState
  /** Smoothed time to connect to a HAG, milliseconds. */
  readonly rttMs: number | undefined
  /** Of the last minutes. */
  readonly leastRttMs: number | undefined
  /** `tcp` if the WAN's path drops what begins with MPTCP, so that trying it would only take time. */
  readonly protocol: Protocol
}

export const isUsable = ({ state }: Pick<WanLink, 'state'>): boolean => state === 'up' || state === 'degraded'

export const isSameHag = (one: Pick<Hag, 'address' | 'port'>, other: Pick<Hag, 'address' | 'port'>): boolean =>
  one.address === other.address && one.port === other.port
