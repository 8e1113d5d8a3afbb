/** When to probe what next. Without clock or I/O; the probers do it. */
import type { Family, SocketAddress } from '../../base/address.js'
import { type Hag, isSameHag, type WanLink } from '../model.js'
import { nextProbe } from '../wans/health.js'
import { admissionDueAt } from './admissions.js'
import { checkMs, type HagState, hagsThere } from './hag-states.js'
import { ipv6ChangesAt, ipv6Question } from './ipv6.js'
import { hagFamily, linksByCost, linkTo, type State, usableHags, wanLinks } from './state.js'
import type { LinkState } from './wan-links.js'

/**
 * How often to ask a HAG for a greeting: the one in use while connections are relayed; the one in use otherwise, if no WAN's probe has
 * asked it; the others; any of them while no client is active; and any HAG over metered WANs.
 */
const askMs = { busy: 500, inUse: 1500, spare: 10_000, calm: 90_000, metered: 15 * 60_000 }
/** A HAG that is down, over a WAN whose volume costs money: a SYN a minute. */
const meteredDownMs = 60_000

/** When the next round of probes over a WAN link begins, and how long each waits. undefined: not before the link or the HAGs are others. */
export function nextRound(state: State, link: LinkState): { afterMs: number; timeoutMs: number } | undefined {
  if (link.address === undefined || !state.hags.some(({ hag }) => hagFamily(hag) === link.family)) return undefined
  return nextProbe(link.health, link.metered)
}

/** Whether a round begins with MPTCP. Not on a WAN that is down: it is back as soon as any packets pass. */
export const asksForMptcp = ({ mptcp, health }: LinkState, now: number): boolean =>
  mptcp.state === 'unknown' || (health.state === 'up' && now >= mptcp.dueAt)

/** HAGs of a family in the order in which a WAN's probe asks them: those that are down last. */
export function hagsToAsk(ordered: readonly HagState[], family: Family): Hag[] {
  const there = hagsThere(ordered)
  return [...there, ...ordered.filter((one) => !there.includes(one))]
    .map(({ hag }) => hag)
    .filter((hag) => hagFamily(hag) === family)
}

/** Over which link to ask a HAG: if possible a usable one whose volume is free, and one over which it serves us. */
export const cheapestLink = (state: State, hag: Hag): WanLink | undefined =>
  linkTo(state, hag) ?? linksByCost(state, hag)[0] ?? wanLinks(state, hagFamily(hag))[0]

/**
 * When a HAG is to be asked for a greeting; it may be long ago, and infinite if nothing is to be asked before something changes. `inUse`: the HAG
 * that is. `isRelaying`: users' connections run. `isCalm`: no client is active.
 */
export function greetingDueAt(
  state: State,
  one: HagState,
  how: { inUse: Hag | undefined; isRelaying: boolean; isCalm: boolean },
): number {
  const { hag, health, reportedAt, askedAt, isBusy, isBroken } = one
  const link = cheapestLink(state, hag)
  if (isBroken || link === undefined) return Number.POSITIVE_INFINITY
  if ((health.misses > 0 || isBusy) && health.state !== 'down') return Number.NEGATIVE_INFINITY
  const last = Math.max(reportedAt, askedAt)
  if (link.metered) return last + (health.state === 'down' ? meteredDownMs : askMs.metered)
  if (health.state === 'down' || health.state === 'returning') return last + askMs.inUse
  if (how.isCalm) return last + askMs.calm
  if (how.inUse === undefined || !isSameHag(how.inUse, hag)) return last + askMs.spare
  return last + (how.isRelaying ? askMs.busy : askMs.inUse)
}

/** When a HAG is to be asked for a whole CONNECT; it may be long ago, and infinite if none before something changes. */
export function requestDueAt(state: State, { hag, health, checkedAt, isBroken }: HagState): number {
  const links = linksByCost(state, hag)
  const [link] = links
  if (link === undefined) return Number.POSITIVE_INFINITY
  if (isBroken) return checkedAt + (link.metered ? meteredDownMs : askMs.inUse)
  if (health.state === 'down') return Number.POSITIVE_INFINITY
  const afterMs = link.metered ? checkMs.metered : checkMs.free
  return Math.min(checkedAt + afterMs, ...links.map((one) => admissionDueAt(state.admissions, hag, one)))
}

/** When something is due about IPv6 if nothing else happens before; it may be long ago. */
export const ipv6DueAt = (state: State): number =>
  Math.min(...usableHags(state).map(({ hag, ipv6 }) => ipv6ChangesAt(ipv6, linkTo(state, hag)?.metered ?? true)))

/** What a HAG is to be asked for about IPv6 now, and over which address of ours. One that is reached by IPv6 has it. */
export function ipv6QuestionTo(
  state: State,
  hag: Hag,
  now: number,
): { bind: string; about: 'own-address' | 'nobody' } | { bind: string; about: SocketAddress } | undefined {
  const link = linkTo(state, hag)
  if (link === undefined) return undefined
  const known = state.hags.find((one) => isSameHag(one.hag, hag))?.ipv6
  const about = ipv6Question(known, link.metered, now)
  if (about === undefined || (about === 'own-address' && hagFamily(hag) === 6)) return undefined
  if (about !== 'destination') return { bind: link.bind, about }
  return known && { bind: link.bind, about: known.destination }
}
