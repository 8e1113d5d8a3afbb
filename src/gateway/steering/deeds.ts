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
   * A HAG is back. It may have been started anew with its machine: then it knows none of the old connections, and quiet ones would never learn.
   * Its connections are made to say something, and the stranded ones are looked for.
   */
  | { type: 'wake-connections'; hag: Hag; firstMs: number; looks: number }
  /**
   * A pass of the network set-up. `isForced`: it tells the WANs even if it finds them as before, because the link may be back before it looks.
   */
  | { type: 'reconcile'; isForced: boolean }

/**
 * When it hears that a WAN is gone, a HAG sends again all that MPTCP has not acknowledged, also what has arrived over the other WANs and only
 * waits for bytes of the lost one, or is acknowledged in these very moments: 50 to 220 kB of a download, in front of what is missing. A little
 * later most of that is acknowledged. Pauses of bulk downloads at link down, ten or twenty each: at once 128 to 162 ms (median 140), after
 * 15 ms 85 to 143 (106), after 25 ms 83 to 146 (100), after 35 ms the same.
 */
const acknowledgedMs = 25
/** A subflow over another WAN takes a round trip or two to come up. A connection that has none by then is dead. */
export const strandedMs = 1500
const strandedSoonMs = 500
/** How often stranded connections are looked for: a join that is under way may yet be in vain. */
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
 * Running connections go on over the other WANs, and what has only just begun over these addresses begins again elsewhere. First the attempts:
 * a moment later the endpoints, if the link has just gone (see `acknowledgedMs`), or at once, if nothing comes back over the WAN anyway. A pass
 * that has looked before may have found an endpoint in place, and the link back: another one follows.
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
 * Links over which nothing comes back any more. A WAN that works and is not in use any more leaves with the pass instead, which adds what comes
 * in its place first.
 */
function newlyLost(before: Target, after: Target): string[] {
  const isLost = ({ bind, state }: WanLink) =>
    state === 'down' && after.withoutEndpoint.has(bind) && !before.withoutEndpoint.has(bind)
  return families.flatMap((family) => after.links[family].filter(isLost).map(({ bind }) => bind))
}

/** Addresses whose link has gone, but for those that keep their endpoint: when the link is back soon, its connections go on. */
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

/** Whether the network set-up is to be another one. */
function isReconcileDue(before: Target, after: Target): boolean {
  return (
    !isSame(before.hagFamilies, after.hagFamilies) ||
    !isSame([...before.withoutEndpoint].sort(), [...after.withoutEndpoint].sort()) ||
    !isSame(before.best, after.best) ||
    before.remaking !== after.remaking ||
    before.isIpv6Carried !== after.isIpv6Carried
  )
}

const isSame = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other)
