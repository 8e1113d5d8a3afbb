/** State and target as `status` shows them (control/status.ts). Without clock or I/O. */
import { type Family, familyOfAddress } from '../../base/address.js'
import { tenths } from '../../base/tenths.js'
import type { GatewayStatus } from '../../control/status.js'
import type { Inspection } from '../../engine/contract.js'
import { isSameHag } from '../model.js'
import { hasJoined, type MemberState } from '../wans/bundle.js'
import { admissionOf } from './admissions.js'
import { currentRole, type State, usableHags } from './state.js'
import { bondedLinks, hasEndpoint, type Target } from './target.js'

type WanStatus = GatewayStatus['wans'][number]
type HagStatus = GatewayStatus['hags'][number]

/** Rates that are older tell nothing: nobody samples them while nothing moves. */
const ratesHoldMs = 3000

const age = (since: number, now: number) => Math.round(Math.max(0, now - since)) / 1000

/** Without what the interfaces have carried. */
export function wansOf(state: State, target: Target, now: number): WanStatus[] {
  const areFresh = now - state.sampledAt < ratesHoldMs
  return state.config.wans.map(({ name, interface: device, metered }) => {
    const own = state.links.filter(({ wan }) => wan === name)
    const rates = areFresh ? state.rates.get(name) : undefined
    return {
      name,
      interface: own[0]?.device ?? device,
      role: currentRole(state, name),
      is_in_use: state.roles.inUse.has(name),
      metered,
      links: own.filter((link) => isShown(link, own, target.hagFamilies)).map((link) => linkOf(link, target, now)),
      received_per_second: Math.round(rates?.receivedPerSecond ?? 0),
      sent_per_second: Math.round(rates?.sentPerSecond ?? 0),
    }
  })
}

/** A link is probed if a HAG has its family. A WAN that has none of these has one link, which says why. */
function isShown(link: State['links'][number], own: State['links'], probed: readonly Family[]): boolean {
  const isProbed = ({ address, family }: State['links'][number]) => address !== undefined && probed.includes(family)
  return isProbed(link) || (!own.some(isProbed) && link === (own.find(({ address }) => address !== undefined) ?? own[0]))
}

function linkOf({ family, address, health, mptcp, isNarrow }: State['links'][number], target: Target, now: number) {
  const link: WanStatus['links'][number] = {
    family,
    state: health.state,
    why: address === undefined || target.hagFamilies.includes(family) ? health.reason : `no HAG has an IPv${family} address`,
    for_seconds: age(health.since, now),
    mptcp: mptcp.state,
    is_narrow: isNarrow,
    has_endpoint: address !== undefined && target.hagFamilies.includes(family) && hasEndpoint(target, address),
  }
  if (address !== undefined) link.address = address
  if (health.rttMs !== undefined) link.rtt_ms = tenths(health.rttMs)
  if (health.minRttMs !== undefined) link.min_rtt_ms = tenths(health.minRttMs)
  return link
}

export function hagsOf(state: State, target: Target, now: number): HagStatus[] {
  const [first] = usableHags(state)
  return target.hags.flatMap((hag) => {
    const one = state.hags.find((known) => isSameHag(known.hag, hag))
    if (one === undefined) return []
    const { health, pipelines, ipv6 } = one
    const status: HagStatus = {
      address: hag.address,
      port: hag.port,
      state: health.state,
      why: health.reason,
      for_seconds: age(health.since, now),
      is_first: first !== undefined && isSameHag(first.hag, hag),
      pipelines,
      refused: target.links[familyOfAddress(hag.address)].flatMap(({ wan, bind }) => {
        const admission = admissionOf(state.admissions, hag, bind)
        return admission?.refused === undefined ? [] : [{ wan, address: bind, why: admission.reason }]
      }),
    }
    if (ipv6 !== undefined) status.reaches_ipv6 = !ipv6.lacks
    return [status]
  })
}

/** `connections`: to HAGs. */
export function bundleOf(
  connections: readonly Inspection[],
  target: Target,
  found: readonly Pick<MemberState, 'wan' | 'family' | 'lack'>[],
): GatewayStatus['bundle'] {
  const membersOf = (family: Family) => bondedLinks(target, family)
  const members = target.hagFamilies.flatMap((family) => {
    const mine = connections.filter(({ remote }) => familyOfAddress(remote.address) === family)
    return membersOf(family).map(({ wan, bind }) => {
      const subflows = mine.flatMap((one) => one.subflows.filter(({ local }) => local.address === bind))
      const sum = (of: (subflow: (typeof subflows)[number]) => number) => subflows.reduce((total, one) => total + of(one), 0)
      const member: GatewayStatus['bundle']['members'][number] = {
        wan,
        family,
        connections: mine.length,
        joined: mine.filter((one) => hasJoined(one, bind)).length,
        moved_bytes: sum(({ bytesSent, bytesReceived }) => bytesSent + bytesReceived),
        packets_sent: sum(({ packetsSent }) => packetsSent),
        packets_sent_again: sum(({ packetsSentAgain }) => packetsSentAgain),
      }
      const lack = found.find((one) => one.wan === wan && one.family === family)?.lack
      if (lack !== undefined) member.lack = lack
      return member
    })
  })
  const isWhole = (one: Inspection) => membersOf(familyOfAddress(one.remote.address)).every(({ bind }) => hasJoined(one, bind))
  return { connections: connections.length, whole: connections.filter(isWhole).length, members }
}
