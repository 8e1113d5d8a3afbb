/** What is known about each WAN in each family, and the WAN links that follow from it. Without clock or I/O. */

import { type Family, families } from '../../base/address.js'
import type { Protocol } from '../../engine/contract.js'
import type { WanAddresses } from '../../network/state.js'
import type { WanFact } from '../facts.js'
import { isUsable, type WanLink } from '../model.js'
import { type Health, nextHealth, type Sign, unknown } from '../wans/health.js'
import type { KnownLink } from '../wans/link-prober.js'

/** What the path does to MPTCP. `blocked`: its SYNs vanish, those of TCP do not. */
export interface MptcpSupport {
  readonly state: 'unknown' | 'yes' | 'stripped' | 'blocked'
  readonly askedAt: number
  readonly dueAt: number
}

export interface LinkState extends KnownLink {
  readonly mptcp: MptcpSupport
  /** Small packets pass, full-size ones vanish. */
  readonly isNarrow: boolean
}

/**
 * Rare, because whether a path carries MPTCP hardly changes, and every such probe makes the kernel join the other WANs, also metered ones.
 */
const mptcpCheckMs = 15 * 60_000
/** More often while MPTCP is blocked, so that it is used again soon. */
const mptcpRecheckMs = 10_000
/** With a HAG without MPTCP every connection falls back; so not a probe for each. */
const mptcpFallbackMs = 2000

const mptcpUnknown: MptcpSupport = { state: 'unknown', askedAt: Number.NEGATIVE_INFINITY, dueAt: 0 }

export function firstLinks(wans: readonly { name: string; interface: string; metered: boolean }[]): LinkState[] {
  return wans.flatMap(({ name, interface: device, metered }) =>
    families.map((family) => ({
      wan: name,
      family,
      metered,
      device,
      address: undefined,
      health: { ...unknown, link: false },
      mptcp: mptcpUnknown,
      isNarrow: false,
    })),
  )
}

/** The WANs that have a link and an address now. The others are down, and those that were not before for this reason. */
export function withWans(links: readonly LinkState[], wans: readonly WanAddresses[], reason: string, now: number): LinkState[] {
  return links.map((link) => {
    const wan = wans.find(({ name }) => name === link.wan)
    const address = wan?.[`address${link.family}`]
    const device = wan?.interface ?? link.device
    if (address === link.address) return device === link.device ? link : { ...link, device }
    const gone: Sign = { type: 'link', present: false, reason }
    const isMoved = address !== undefined && link.address !== undefined
    const left = address === undefined || isMoved ? nextHealth(link.health, gone, now) : link.health
    return {
      ...link,
      device,
      address,
      health:
        address === undefined
          ? left
          : nextHealth(left, { type: 'link', present: true, reason: `its address is ${address}` }, now),
      // Another address may mean another path.
      mptcp: mptcpUnknown,
      isNarrow: false,
    }
  })
}

export function withWanFact(links: readonly LinkState[], fact: WanFact, now: number): LinkState[] {
  return links.map((link) => (link.address === fact.bind ? linkAfter(link, fact, now) : link))
}

function linkAfter(link: LinkState, fact: WanFact, now: number): LinkState {
  switch (fact.type) {
    case 'wan-answered':
      return { ...link, health: nextHealth(link.health, { type: 'answer', rttMs: fact.rttMs }, now) }
    case 'wan-silent':
      return { ...link, health: nextHealth(link.health, { type: 'silence', reason: fact.reason, isSure: fact.isSure }, now) }
    case 'mptcp-seen': {
      const state = fact.seen === 'mptcp' ? 'yes' : fact.seen === 'tcp' ? 'stripped' : 'blocked'
      const dueAt = now + (link.metered || state === 'yes' ? mptcpCheckMs : mptcpRecheckMs)
      return { ...link, mptcp: { state, askedAt: now, dueAt } }
    }
    case 'full-size-seen':
      return { ...link, isNarrow: !fact.passes }
  }
}

/** A connection over this address did not become MPTCP. If the path carried it before, it is probed again soon. */
export function withFallback(links: readonly LinkState[], bind: string): readonly LinkState[] {
  const link = links.find(({ address, mptcp }) => address === bind && mptcp.state === 'yes')
  if (link === undefined) return links
  const dueAt = Math.min(link.mptcp.dueAt, link.mptcp.askedAt + mptcpFallbackMs)
  if (dueAt === link.mptcp.dueAt) return links
  return links.map((one) => (one === link ? { ...one, mptcp: { ...one.mptcp, dueAt } } : one))
}

/** Connections that begin over it are not bonded. */
const isPoor = ({ state }: MptcpSupport) => state === 'blocked' || state === 'stripped'
const protocolOf = ({ state }: MptcpSupport): Protocol => (state === 'blocked' ? 'tcp' : 'mptcp')

/**
 * The WANs that have an address of the family, best first: usable ones by their round-trip time, then the others. `hasHag`: a HAG has an
 * address of the family.
 */
export function linksOf(all: readonly LinkState[], family: Family, hasHag: boolean): WanLink[] {
  // If no HAG has the family, it cannot be probed: the WAN's state in the other family counts.
  const judged = (link: LinkState): Health => {
    const other = hasHag ? undefined : all.find((one) => one.wan === link.wan && one.family !== family)
    return other?.address === undefined ? link.health : other.health
  }
  const own = all.flatMap((link) => {
    const { wan, metered, mptcp, address: bind, isNarrow } = link
    if (link.family !== family || bind === undefined) return []
    const { state, rttMs, minRttMs } = judged(link)
    const rank = { up: 0, degraded: 1, probing: 2, down: 3 }[state] + (isPoor(mptcp) ? 0.5 : 0)
    return [{ rank, isNarrow, link: { wan, bind, metered, state, rttMs, minRttMs, protocol: protocolOf(mptcp) } }]
  })
  own.sort((one, other) => one.rank - other.rank || (one.link.rttMs ?? 1e5) - (other.link.rttMs ?? 1e5))
  // Over a narrow path greetings pass and downloads hang, so it counts as down as long as there is a better one.
  if (!own.some(({ link, isNarrow }) => isUsable(link) && !isNarrow)) return own.map(({ link }) => link)
  return [
    ...own.filter(({ isNarrow }) => !isNarrow).map(({ link }) => link),
    ...own.filter(({ isNarrow }) => isNarrow).map(({ link }): WanLink => ({ ...link, state: 'down' })),
  ]
}
