/**
 * Whether HAGs can reach IPv6 destinations. If none can, redirected connections would be accepted and then reset, which no client's Happy
 * Eyeballs (RFC 8305) can repair. So if this gateway has a public IPv6 address, HAGs are asked for it before anybody is redirected. Replies
 * to users' requests count, too, because only those ask for real destinations. Without clock or I/O.
 */
import type { SocketAddress } from '../../base/address.js'

/** Users' requests in a row, before a HAG is asked what is wrong. */
const refusalsToAsk = 2
/** How long users' requests are kept from trying again; doubles each time. Their destinations may just not exist. */
const firstTrialMs = 5 * 60_000
const longestTrialMs = 60 * 60_000
const askMs = { user: 1000, free: 10_000, metered: 15 * 60_000 }

export interface Ipv6Reach {
  /** Users' requests whose destination was unreachable. */
  readonly refusals: number
  /** Where the last of them wanted to go. */
  readonly destination: SocketAddress
  readonly lacks: boolean
  readonly askedAt: number
  readonly trialMs: number
  readonly trialAt: number
}

const nothingKnown = (destination: SocketAddress): Ipv6Reach => ({
  refusals: 0,
  destination,
  lacks: false,
  askedAt: Number.NEGATIVE_INFINITY,
  trialMs: firstTrialMs,
  trialAt: 0,
})

export const withIpv6Refusal = (known: Ipv6Reach | undefined, destination: SocketAddress): Ipv6Reach => ({
  ...(known ?? nothingKnown(destination)),
  refusals: (known?.refusals ?? 0) + 1,
  destination,
})

export const withIpv6Asked = (known: Ipv6Reach | undefined, destination: SocketAddress, now: number): Ipv6Reach => ({
  ...(known ?? nothingKnown(destination)),
  askedAt: now,
})

export function withIpv6Verdict(
  known: Ipv6Reach | undefined,
  verdict: 'serves-user' | 'reaches' | 'lacks',
  now: number,
): Ipv6Reach | undefined {
  if (known === undefined) return undefined
  if (verdict === 'serves-user') return { ...known, refusals: 0 }
  if (verdict === 'reaches') return known.lacks ? { ...known, lacks: false, refusals: 0, trialMs: firstTrialMs } : known
  if (known.lacks) return known
  return { ...known, lacks: true, trialAt: now + known.trialMs, trialMs: Math.min(2 * known.trialMs, longestTrialMs) }
}

/** After some time users' requests may try again. `canAsk`: the HAG can be reached over a WAN. */
export function withIpv6Time(known: Ipv6Reach | undefined, canAsk: boolean, now: number): Ipv6Reach | undefined {
  if (known === undefined || !known.lacks || !canAsk || now < known.trialAt) return known
  return { ...known, lacks: false, refusals: 0 }
}

/** When time alone changes something: it is asked again, or users may try again. Infinite if nothing is known, or it reaches IPv6. */
export const ipv6ChangesAt = (known: Ipv6Reach | undefined, metered: boolean): number =>
  known?.lacks ? Math.min(known.trialAt, known.askedAt + (metered ? askMs.metered : askMs.free)) : Number.POSITIVE_INFINITY

/**
 * What a HAG is to be asked for now: our own address, if nothing is known of it and it is reached by IPv4 (one that is reached by IPv6 has it);
 * an address that nobody has, to find out what is wrong; or where users wanted to go, to find out whether it is mended.
 */
export function ipv6Question(
  known: Ipv6Reach | undefined,
  metered: boolean,
  now: number,
): 'own-address' | 'nobody' | 'destination' | undefined {
  if (known === undefined) return 'own-address'
  const silentMs = now - known.askedAt
  if (known.lacks) return silentMs >= (metered ? askMs.metered : askMs.free) ? 'destination' : undefined
  return known.refusals >= refusalsToAsk && silentMs >= askMs.user ? 'nobody' : undefined
}
