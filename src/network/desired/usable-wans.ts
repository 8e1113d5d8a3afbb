/** Which WANs can be used, from which addresses, over which gateways: from the config and from what the system has learned. */

import { type Cidr, type Family, isInside, parseCidr } from '../../base/address.js'
import { type GatewayConfig, sameAddress, type WanConfig } from '../../config/schema.js'
import { downNote, type ForeignRoute, type Interface, type Observed } from '../state.js'

export interface WanRoute {
  family: Family
  source: string
  /** undefined on point-to-point devices, or if the learned default route has none. */
  gateway: string | undefined
  /** Metrics of the learned default route, such as the MTU. */
  metrics: string
}

export interface UsableWan {
  config: WanConfig
  index: number
  paths: WanRoute[]
}

/** A WAN that cannot be used is left out, with a note that says what mends it. */
export function usableWans(config: GatewayConfig, observed: Observed): { wans: UsableWan[]; notes: string[] } {
  const wans: UsableWan[] = []
  const notes: string[] = []
  const isTaken = ({ source }: WanRoute) => wans.some(({ paths }) => paths.some((one) => one.source === source))
  for (const [index, wan] of config.wans.entries()) {
    const found = pathsOf(wan, observed, true)
    const twice = Array.isArray(found) ? found.filter(isTaken) : []
    notes.push(...twice.map(({ source }) => downNote(wan.name, `its address ${sameAddress(source)}`)))
    const usable = Array.isArray(found) ? found.filter((path) => !twice.includes(path)) : found
    if (Array.isArray(usable) && usable.length === 0) continue
    if (Array.isArray(usable)) wans.push({ config: wan, index, paths: usable })
    else notes.push(downNote(wan.name, usable.trouble))
  }
  if (wans.length > 0) return { wans, notes }
  // The last one stays: removing it gains nothing, and its connections may survive a short outage.
  for (const [index, wan] of config.wans.entries()) {
    const withoutCarrier = pathsOf(wan, observed, false)
    if (Array.isArray(withoutCarrier)) wans.push({ config: wan, index, paths: withoutCarrier })
  }
  return { wans, notes }
}

export const gatewayKey = { 4: 'gateway', 6: 'gateway6' } as const
/** What names the gateway if the config does not. */
export const gatewaySources = { 4: ['default route', 'DHCP lease'], 6: ['default route'] } as const
const addressKey = { 4: 'address', 6: 'address6' } as const

function pathsOf(wan: WanConfig, observed: Observed, withCarrier: boolean): WanRoute[] | { trouble: string } {
  const device = wan.interface
  const found = observed.interfaces.find(({ name }) => name === device)
  if (found === undefined) return { trouble: `interface ${device} does not exist: create it, or correct the config` }
  if (!found.up) return { trouble: `interface ${device} is down: ip link set ${device} up` }
  if (withCarrier && !found.carrier) return { trouble: `interface ${device} has no carrier` }
  const families = observed.families.filter((family) => fitAddresses(found, family).length > 0)
  if (families.length === 0)
    return { trouble: `interface ${device} has no address: start its DHCP or PPP client, or give it one` }
  for (const family of families) {
    const configured = wan[addressKey[family]]
    if (configured !== undefined && !fitAddresses(found, family).some(({ address }) => address === configured))
      return { trouble: `interface ${device} has no address ${configured}: give it that one, or correct "${addressKey[family]}"` }
  }
  const paths = families.flatMap((family) => {
    const nextHop = nextHopOf(wan, found, family, observed)
    if (nextHop === undefined) return []
    const source = wan[addressKey[family]] ?? sourceOf(found, family, nextHop)
    return [{ family, gateway: nextHop.gateway, metrics: nextHop.metrics, source }]
  })
  if (paths.length > 0) return paths
  const family = families.includes(4) ? 4 : 6
  const sources = gatewaySources[family].join(' or ')
  return {
    trouble: `interface ${device} has no ${sources} to learn the gateway from: if none comes, set "${gatewayKey[family]}" in the config`,
  }
}

/** Usable addresses; in IPv6 those that stay (no privacy addresses) before others, and global ones before unique local ones. */
function fitAddresses({ addresses }: Interface, family: Family) {
  const cost = ({ address, temporary }: Interface['addresses'][number]) =>
    (isInside(address, uniqueLocal) ? 2 : 0) + (temporary ? 1 : 0)
  return addresses.filter((one) => one.family === family && one.usable).sort((one, other) => cost(one) - cost(other))
}
export const uniqueLocal = [parseCidr('fc00::/7')].filter((one) => one !== undefined)

/** The source address that the system uses for the gateway: the route's, one in the gateway's network, or the first. */
function sourceOf(
  found: Interface,
  family: Family,
  { gateway, source }: { gateway?: string | undefined; source?: string | undefined },
) {
  const fit = fitAddresses(found, family)
  const isNear = ({ address, prefix }: Interface['addresses'][number]) =>
    gateway !== undefined && isInside(gateway, networksOf([`${address}/${prefix}`]))
  return (fit.find(({ address }) => address === source) ?? fit.find(isNear) ?? fit[0])?.address ?? ''
}

function nextHopOf(wan: WanConfig, found: Interface, family: Family, { mainRoutes, otherDefaults, leases }: Observed) {
  const isDefault = (route: ForeignRoute) =>
    route.family === family && route.device === found.name && route.destination === 'default' && !route.isRefusing
  const byMetric = (routes: readonly ForeignRoute[]) => routes.filter(isDefault).sort((one, other) => one.metric - other.metric)
  const [learned] = [...byMetric(mainRoutes), ...byMetric(otherDefaults)]
  const configured = wan[gatewayKey[family]]
  const isLeased = ({ address }: { address: string }) => found.addresses.some((one) => one.usable && one.address === address)
  // A DHCP client gives all its routes the same metric, so the kernel refused this WAN's route if another WAN has one.
  const lease = family === 4 ? leases.findLast(isLeased) : undefined
  const { metrics = '', source } = learned ?? {}
  if (found.pointToPoint) return { gateway: undefined, metrics, source }
  if (configured !== undefined) return { gateway: configured, metrics, source }
  if (learned !== undefined) return { gateway: learned.gateway, metrics, source }
  return lease && { gateway: lease.gateway, metrics, source: lease.address }
}

/** Texts that are no network are left out. */
export const networksOf = (texts: readonly string[]): Cidr[] => texts.map(parseCidr).filter((one) => one !== undefined)
