/** What is to be done when the state or the target changes, as data. Without clock or I/O: steer.ts carries it out. */

import { families } from '../../base/address.js'
import type { WanAddresses } from '../../network/state.js'
import { type Hag, isSameHag, type WanLink } from '../model.js'
import type { State } from './state.js'
import { hasEndpoint, type Target } from './target.js'

export interface Situation {
  readonly state: State
  readonly target: Target
}

/** `afterMs`: so long after the fact that led to it. Deeds of the same moment are done in their order. */
export type Deed =
  /** The engine is told which address belongs to which interface. */
  | { type: 'use-wans'; wans: readonly WanAddresses[] }
  /** New connections take other paths. */
  | { type: 'use-paths' }
  /** Attempts over this address fail at once, and running connections leave it. */
  | { type: 'abandon'; address: string }
  /** `reconciles`: a pass of the network set-up follows when that is done. */
  | { type: 'drop-endpoints'; addresses: readonly string[]; afterMs: number; reconciles: boolean }
  /** Connections that have no subflow left are reset, so that their clients begin anew. */
  | { type: 'look-for-stranded'; firstMs: number; looks: number }
  /** A HAG is dead: its connections are reset, so that their clients begin anew. */
  | { type: 'reset-connections'; hag: Hag }
  /**
   * A HAG is back. If its machine was restarted, it knows none of the old connections, and idle ones would never notice. Keepalive makes
   * them send a packet, and stranded ones are looked for.
   */
  | { type: 'wake-connections'; hag: Hag; firstMs: number; looks: number }
  /**
   * A pass of the network set-up. `isForced`: it reports the WANs even if they have not changed, because the link may be back before it
   * looks.
   */
  | { type: 'reconcile'; isForced: boolean }

/**
 * When a HAG learns that a WAN is gone, it sends again all that MPTCP has not acknowledged: also bytes that have arrived over other WANs
 * and only wait for bytes of the lost one, or whose acknowledgements are on their way. In a download that is 50 to 220 kB, before the
 * missing bytes. A little later most of it is acknowledged. Pauses of bulk downloads at link down, ten or twenty each: at once 128 to 162
 * ms (median 140), after 15 ms 85 to 143 (106), after 25 ms 83 to 146 (100), after 35 ms the same.
 */
const acknowledgedMs = 25
/** A subflow over another WAN needs a round trip or two. A connection that has none by then is dead. */
export const strandedMs = 1500
const strandedSoonMs = 500
/** How many times to look for stranded connections, because a join under way may still fail. */
const strandedLooks = 10

export function deeds(before: Situation | undefined, after: Situation): Deed[] {
  if (before === undefined)
    return [{ type: 'use-wans', wans: after.state.wans }, { type: 'use-paths' }, { type: 'reconcile', isForced: false }]
  const all: Deed[] = []
  if (before.state.wans !== after.state.wans) all.push({ type: 'use-wans', wans: after.state.wans })
  if (!isSame(before.target.paths, after.target.paths)) all.push({ type: 'use-paths' })
  const gone = newlyGone(before, after)
  all.push(...leave(newlyLost(before.target, after.target), false), ...leave(gone, true), ...afterHags(before.state, after.state))
  const isForced = [...after.state.gone].some((address) => !before.state.gone.has(address))
  if (isForced || isReconcileDue(before.target, after.target)) all.push({ type: 'reconcile', isForced })
  return all
}

/**
 * Running connections go on over the other WANs, and attempts over these addresses begin again elsewhere. First the attempts end. The
 * endpoints are dropped a moment later if the link has just gone (see `acknowledgedMs`), or at once if nothing comes back over the WAN
 * anyway. Another pass follows, because one before may have seen the endpoint still there, or the link back.
 */
function leave(addresses: readonly string[], isLinkGone: boolean): Deed[] {
  if (addresses.length === 0) return []
  return [
    ...addresses.map((address): Deed => ({ type: 'abandon', address })),
    { type: 'look-for-stranded', firstMs: strandedMs, looks: strandedLooks },
    { type: 'drop-endpoints', addresses, afterMs: isLinkGone ? acknowledgedMs : 0, reconciles: isLinkGone },
  ]
}

/**
 * Links over which nothing comes back any more. A WAN that works and is no longer in use leaves with the pass instead, which first adds
 * what replaces it.
 */
function newlyLost(before: Target, after: Target): string[] {
  const isLost = ({ bind, state }: WanLink) =>
    state === 'down' && after.withoutEndpoint.has(bind) && !before.withoutEndpoint.has(bind)
  return families.flatMap((family) => after.links[family].filter(isLost).map(({ bind }) => bind))
}

/** Addresses whose link has gone, without those that keep their endpoint: if the link is back soon, its connections go on. */
function newlyGone(before: Situation, after: Situation): string[] {
  const isGone = (address: string) =>
    after.state.gone.has(address) && !before.state.gone.has(address) && !hasEndpoint(after.target, address)
  return families.flatMap((family) => before.state.wans.flatMap((wan) => wan[`address${family}`] ?? [])).filter(isGone)
}

function afterHags(before: State, after: State): Deed[] {
  return after.hags.flatMap((one): Deed[] => {
    const { hag, health, fall } = one
    const former = before.hags.find((other) => isSameHag(other.hag, hag))
    if (health.state === 'returning' && former?.health.state === 'down')
      return [{ type: 'wake-connections', hag, firstMs: strandedSoonMs, looks: strandedLooks }]
    if (fall?.death === undefined || (former?.fall?.death !== undefined && former.fall.at === fall.at)) return []
    // If its machine answers, each connection finds out when it sends something.
    if (fall.death === 'refused') return [{ type: 'look-for-stranded', firstMs: strandedSoonMs, looks: strandedLooks }]
    return [{ type: 'reset-connections', hag }]
  })
}

/**
 * Whether the network set-up has to change. A pass that has found a new address could not know that it is to have an endpoint; one that has
 * found that an address is gone has nothing left to do.
 */
function isReconcileDue(before: Target, after: Target): boolean {
  const isChanged = ({ bind }: WanLink) => hasEndpoint(before, bind) !== hasEndpoint(after, bind)
  return (
    families.some((family) => after.links[family].some(isChanged)) ||
    !isSame(before.hagFamilies, after.hagFamilies) ||
    !isSame(before.best, after.best) ||
    before.remaking !== after.remaking ||
    before.isIpv6Carried !== after.isIpv6Carried
  )
}

const isSame = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other)
