/**
 * What should be, as a pure function of what is known: where connections go, which WANs have endpoints, where the default route leads.
 * Rules that keep their former choice, so that nothing flaps, look at the former target. Each rule stands here once.
 */
import { type Family, families, familyOfAddress } from '../../base/address.js'
import { type ByFamily, byFamily, type Hag, type HagPath, isUsable, type Path, type Paths, type WanLink } from '../model.js'
import { isRefused } from './admissions.js'
import { type HagState, hagsThere } from './hag-states.js'
import { currentRole, directAnswersToTrust, hagFamily, type State, usableHags, wanLinks } from './state.js'

export interface Target {
  /** Best first. */
  readonly links: ByFamily<readonly WanLink[]>
  /** The family whose HAGs come first. */
  readonly family: Family
  /** All HAGs, best first. */
  readonly hags: readonly Hag[]
  /** Those that serve us, best first. */
  readonly usableHags: readonly Hag[]
  /** The families of the HAGs, the best HAG's first: no other address needs an endpoint. */
  readonly hagFamilies: readonly Family[]
  readonly paths: Paths
  /** The WAN for traffic that is not redirected. */
  readonly best: ByFamily<string | undefined>
  /** Addresses of links that are to have no MPTCP endpoint. */
  readonly withoutEndpoint: ReadonlySet<string>
  /** Has no endpoint until a pass has deleted it. */
  readonly remaking: string | undefined
  /** False if no HAG in use can reach IPv6 destinations. */
  readonly isIpv6Carried: boolean
}

/**
 * How long to wait before the next path is tried beside a silent one: three round trips; TCP sends a lost SYN again only after 1 s (RFC
 * 6298 section 2.1).
 */
const patience = { roundTrips: 3, minMs: 150, maxMs: 1000, unknownMs: 300 }
/** A direct connection is not bonded and has another public address, so not after a moment's silence. */
const directPatienceMs = 1000

export function target(state: State, before: Target | undefined): Target {
  const links = byFamily((family) => wanLinks(state, family))
  const inUse = byFamily((family) => linksInUse(links[family], state.roles.inUse))
  const family = bestFamily(links, state.roles.inUse, before?.family)
  const hags = inOrder(state.hags, family)
  const usable = usableHags(state, hags)
  const hagFamilies = [...new Set([...usable, ...hags].map(({ hag }) => hagFamily(hag)))]
  return {
    links,
    family,
    hags: hags.map(({ hag }) => hag),
    usableHags: usable.map(({ hag }) => hag),
    hagFamilies,
    paths: pathsOver(state, links, inUse, hags, usable),
    best: byFamily((one) => bestWan(state, inUse[one], one, before?.best[one])),
    withoutEndpoint: new Set(
      families.flatMap((one) => withoutEndpoint(links[one], inUse[one], before?.withoutEndpoint ?? new Set())),
    ),
    remaking: state.remaking,
    isIpv6Carried: usable.length === 0 || usable.some(({ ipv6 }) => ipv6?.lacks !== true),
  }
}

/** Where connections may begin: over the WANs in use, if one of them has the family and works. */
function linksInUse(links: readonly WanLink[], used: ReadonlySet<string>): readonly WanLink[] {
  const inUse = links.filter(({ wan }) => used.has(wan))
  return inUse.some(isUsable) ? inUse : links
}

/**
 * The last WAN keeps its endpoint: WANs that are lost or not in use have none, as long as another one of the family is usable. Connections
 * outlive a short outage of their last WAN, but not the end of their last subflow. While none is usable those without an endpoint get none:
 * what joined over a silent WAN would try again after longer and longer pauses, and on its return the connections would have to leave the WAN
 * that was lost last before they are there.
 *
 * The network set-up has the same rule for what it finds on the machine (endpoints of WANs that it cannot use).
 */
function withoutEndpoint(links: readonly WanLink[], inUse: readonly WanLink[], before: ReadonlySet<string>): string[] {
  const kept = inUse.filter(({ state }) => state !== 'down')
  const isWithout = kept.some(isUsable) ? (link: WanLink) => !kept.includes(link) : ({ bind }: WanLink) => before.has(bind)
  return links.filter(isWithout).map(({ bind }) => bind)
}

/**
 * Whether an address is to have an endpoint, be it of a link or not. One of which nothing is known, because it has just come or gone, has none
 * while another WAN is usable: all connections would join with it, and would have to leave it again at once.
 */
export function hasEndpoint({ links, withoutEndpoint, remaking }: Target, address: string): boolean {
  if (withoutEndpoint.has(address) || address === remaking) return false
  const own = links[familyOfAddress(address)]
  return !own.some(isUsable) || own.some(({ bind }) => bind === address)
}

/**
 * The family in which connections to HAGs find most WANs: a connection is bonded over the WANs of its family only. If both are as good it
 * stays as it is, and at first is IPv4, of which a packet carries 20 bytes more.
 */
function bestFamily(links: ByFamily<readonly WanLink[]>, used: ReadonlySet<string>, current: Family | undefined): Family {
  const count = (family: Family, test: (link: WanLink) => boolean) =>
    links[family].filter((link) => used.has(link.wan) && test(link)).length
  const more = (test: (link: WanLink) => boolean): Family | undefined => {
    const [four, six] = [count(4, test), count(6, test)]
    return four === six ? undefined : four > six ? 4 : 6
  }
  // Before anybody has answered, and while all are lost, WANs with an address count.
  return more(isUsable) ?? more(({ state }) => state !== 'down') ?? current ?? 4
}

/** Of HAGs of one priority those of the family come first. */
function inOrder(hags: readonly HagState[], family: Family): HagState[] {
  const place = new Map<string, number>()
  for (const { priority } of hags) if (!place.has(priority)) place.set(priority, place.size)
  const isOther = ({ hag }: HagState) => (hagFamily(hag) === family ? 0 : 1)
  const placeOf = ({ priority }: HagState) => place.get(priority) ?? 0
  return [...hags].sort((one, other) => placeOf(one) - placeOf(other) || isOther(one) - isOther(other))
}

/**
 * The first WAN of the config that is usable and in use. While none is usable it stays as it is, until connections around the HAGs show which
 * one works; at first it is as the first pass has made it. So it stays while nothing is known yet of the current one.
 */
function bestWan(state: State, inUse: readonly WanLink[], family: Family, before: string | undefined): string | undefined {
  const current = before ?? state.wans.find((wan) => wan[`address${family}`] !== undefined)?.name
  if (inUse.some((link) => link.wan === current && link.state === 'probing')) return current
  const usable = state.config.wans.find(({ name }) => inUse.some((link) => link.wan === name && isUsable(link)))?.name
  if (usable !== undefined) return usable
  const direct = state.direct[family]
  return direct !== undefined && direct.times >= directAnswersToTrust ? direct.wan : current
}

function pathsOver(
  state: State,
  links: ByFamily<readonly WanLink[]>,
  inUse: ByFamily<readonly WanLink[]>,
  hags: readonly HagState[],
  usable: readonly HagState[],
): Paths {
  const isDirectAllowed = state.config.onHagDown === 'direct'
  const over = ({ hag, pipelines }: HagState, isWanted: boolean) =>
    inUse[hagFamily(hag)]
      .filter((link) => isUsable(link) === isWanted && !isRefused(state.admissions, hag, link.bind))
      .map((link) => hagPath(link, hag, pipelines))
  const ready = usable.map((hag) => over(hag, true))
  // HAGs that are down are tried if nothing else is left and direct connections are not allowed.
  const last = isDirectAllowed ? [] : hags.filter((hag) => !usable.includes(hag))
  const hagPaths = [
    ...ready.flat(),
    // A WAN that seems to be down is tried only if no other path is left.
    ...usable.flatMap((hag) => over(hag, false)),
    ...last.flatMap((hag) => [...over(hag, true), ...over(hag, false)]),
  ]
  if (isDirectAllowed && hagPaths.length > 0) {
    const final = hagPaths[hagPaths.length - 1] as HagPath
    hagPaths[hagPaths.length - 1] = { ...final, patienceMs: Math.max(final.patienceMs, directPatienceMs) }
  }
  return {
    hagPaths,
    direct: byFamily((family) => directLinks(state, links[family]).map(directPath)),
    // The paths of HAGs that have no usable one take no places in front of them.
    preparable: hagPaths.slice(0, ready.find((paths) => paths.length > 0)?.length ?? 0),
    hagAddresses: hags.map(({ hag }) => hag.address),
  }
}

/**
 * Links for direct connections: these are not bonded, so roles and the config's order count, not round trips. While no HAG answers over any
 * WAN, that says nothing against a single one.
 */
function directLinks(state: State, links: readonly WanLink[]): WanLink[] {
  const isHagThere = hagsThere(state.hags).length > 0
  const isStandby = (link: WanLink) => isUsable(link) && !state.roles.inUse.has(link.wan)
  const places = { normal: 0, overflow: 1, backup: 2 }
  const rank = (link: WanLink) => (isUsable(link) || !isHagThere ? 0 : 3) + places[currentRole(state, link.wan)]
  const place = ({ wan }: WanLink) => state.config.wans.findIndex(({ name }) => name === wan)
  const inUse = links.filter((link) => !isStandby(link))
  return (inUse.length > 0 ? inUse : [...links]).sort((one, other) => rank(one) - rank(other) || place(one) - place(other))
}

function patienceOf(rttMs: number | undefined): number {
  const { roundTrips, minMs, maxMs, unknownMs } = patience
  return rttMs === undefined ? unknownMs : Math.ceil(Math.min(Math.max(roundTrips * rttMs, minMs), maxMs))
}

const directPath = ({ wan, bind, rttMs, minRttMs }: WanLink): Path => ({
  wan,
  bind,
  patienceMs: patienceOf(rttMs),
  minRttMs,
  pipelined: false,
  protocol: 'tcp',
})

const hagPath = (link: WanLink, hag: Hag, pipelined: boolean): HagPath => ({
  ...directPath(link),
  pipelined,
  protocol: link.protocol,
  hag,
})

/** Links that connections to HAGs use now. */
export const bondedLinks = ({ links, withoutEndpoint }: Target, family: Family): WanLink[] =>
  links[family].filter((link) => isUsable(link) && link.protocol === 'mptcp' && !withoutEndpoint.has(link.bind))
