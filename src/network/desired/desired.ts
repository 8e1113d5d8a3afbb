/** What should be: a pure function of the config and of what was observed. */

import { type Family, families, familyOf, isInside } from '../../base/address.js'
import type { GatewayConfig } from '../../config/schema.js'
import type { Blocked } from '../arrivals.js'
import { isLastEndpoint, isMade } from '../kernel/mptcp.js'
import { routeEntry } from '../kernel/route.js'
import { mainRules, sourceRule } from '../kernel/rule.js'
import { remarksOnSettings } from '../mptcp-settings.js'
import type { NetworkOptions } from '../state.js'
import {
  type Desired,
  downNote,
  type Endpoint,
  type Entry,
  type ForeignRoute,
  type InterfaceAddress,
  type KernelEndpoint,
  type Observed,
  owned,
} from '../state.js'
import { connected, type Extra, redirection, type WanGateways } from './redirection.js'
import { desiredSysctls, withoutFixed } from './sysctls.js'
import { gatewayKey, gatewaySources, networksOf, type UsableWan, uniqueLocal, usableWans, type WanRoute } from './usable-wans.js'

const isLinkLocal = (destination: string) => destination.startsWith('fe80:')

function routesOf({ config: wan, index, paths }: UsableWan, config: GatewayConfig, observed: Observed): Entry[] {
  const table = owned.base + index
  const isLan = (name: string) => config.lan.interfaces.includes(name)
  const others = observed.interfaces.filter(({ name }) => isLan(name) || !config.wans.some((one) => one.interface === name))
  return paths.flatMap(({ family, source, gateway, metrics }) => {
    const own = connected(observed, wan.interface, family)
    const near = own.map((destination) => ({
      destination,
      device: wan.interface,
      table,
      source: isLinkLocal(destination) ? undefined : source,
    }))
    // Without these networks an answer from the WAN's address to a client in the LAN, a guest network or a container would leave by the WAN.
    // Of others than the LAN only those that they have an address in: a VPN's routes may lead to the HAG.
    const inside = others.flatMap(({ name: device, addresses }) =>
      connected(observed, device, family)
        .filter((destination) => !isLinkLocal(destination) && (isLan(device) || isOwnNetwork(destination, addresses)))
        .map((destination) => ({ destination, device, table })),
    )
    const onlink = isOnlink(gateway, own)
    const far = { destination: 'default', gateway, device: wan.interface, source, metrics, onlink, table }
    const routes = [...near, ...inside, far]
    const isFirst = ({ destination }: { destination: string }, at: number) =>
      routes.findIndex((one) => one.destination === destination) === at
    return routes.filter(isFirst).map((route) => routeEntry(family, route))
  })
}

function isOwnNetwork(destination: string, addresses: readonly InterfaceAddress[]): boolean {
  const networks = networksOf([destination])
  return addresses.some(({ address, prefix }) => networks[0]?.prefix === prefix && isInside(address, networks))
}

/**
 * For what is not redirected, in a table of our own in front of the main one's default route: a second one there would be in the way of DHCP
 * clients, whose `ip route add` is refused where their metric is taken. Where the main table leads over the right WAN already there is none.
 * Where it leads over no WAN at all, somebody wants that (a VPN, another router), and it stays so.
 */
function unredirected(
  config: GatewayConfig,
  wans: readonly UsableWan[],
  observed: Observed,
  { best, withoutEndpoint }: NetworkOptions,
) {
  const notes: string[] = []
  const entries = observed.families.flatMap((family) => {
    const isFit = (path: WanRoute) => path.family === family && !isAstray(path, wans, observed)
    const fit = wans.flatMap((wan) => wan.paths.filter(isFit).map((path) => ({ wan, path })))
    const chosen =
      fit.find(({ wan }) => wan.config.name === best?.[family]) ??
      fit.find(({ path }) => !withoutEndpoint?.has(path.source)) ??
      fit[0]
    if (chosen === undefined) return []
    const device = chosen.wan.config.interface
    const { gateway, source, metrics } = chosen.path
    const isDefault = (route: ForeignRoute) => route.family === family && route.destination === 'default' && !route.isRefusing
    const others = observed.mainRoutes.filter(isDefault)
    const min = Math.min(...others.map(({ metric }) => metric))
    const leaders = others.filter(({ metric }) => metric === min).slice(0, family === 4 ? 1 : undefined)
    const stranger = leaders.find((route) => !config.wans.some((wan) => wan.interface === route.device))
    if (stranger !== undefined) {
      notes.push(
        `the main table's IPv${family} default route leads over ${stranger.device}, which is no WAN: bondsocks puts no other in its place`,
      )
      return []
    }
    const leads = (route: ForeignRoute) => route.device === device && (gateway === undefined || route.gateway === gateway)
    if (leaders.length > 0 && leaders.every(leads)) return []
    const onlink = isOnlink(gateway, connected(observed, device, family))
    // For IPv6 the kernel's choice for each destination is better.
    const words = { destination: 'default', gateway, device, metrics, onlink, source: family === 4 ? source : undefined }
    return [{ route: routeEntry(family, { ...words, table: owned.mainTable }), rules: mainRules(family) }]
  })
  return { routes: entries.map(({ route }) => route), rules: entries.flatMap(({ rules }) => rules), notes }
}

const isOnlink = (gateway: string | undefined, near: readonly string[]) =>
  gateway !== undefined && !isLinkLocal(gateway) && !isInside(gateway, networksOf(near))

/** Packets of this path do not leave by its own WAN, and another WAN's do. */
function isAstray(
  { family, source }: Pick<WanRoute, 'family' | 'source'>,
  wans: readonly UsableWan[],
  { outside: { astray } }: Observed,
): boolean {
  return astray.has(source) && wans.some(({ paths }) => paths.some((path) => path.family === family && !astray.has(path.source)))
}

/** A connection's subflows are all of the HAG's family, and MPTCP has only eight endpoints: so no endpoints of families that no HAG has. */
function endpointsOf(
  wans: readonly UsableWan[],
  config: GatewayConfig,
  observed: Observed,
  { withoutEndpoint, hagFamilies = [] }: NetworkOptions,
) {
  const numberOf = (family: Family) => wans.filter(({ paths }) => paths.some((path) => path.family === family)).length
  const byWans: Family[] = numberOf(6) > numberOf(4) ? [6, 4] : [4, 6]
  // A name may have addresses of either family.
  const configured = byWans.filter((family) =>
    config.hags.some(({ address }) => address === undefined || familyOf(address) === family),
  )
  const families = new Set<Family | undefined>(hagFamilies.length > 0 ? hagFamilies : configured)
  const isWans = (device: string | undefined) => config.wans.some((wan) => wan.interface === device)
  const all = wans.flatMap(({ config: wan, paths }) =>
    paths
      .filter(({ family }) => families.has(family))
      .map(({ source }): Endpoint => ({ address: source, device: wan.interface })),
  )
  const isLed = (source: string) => !isAstray({ family: familyOf(source) ?? 4, source }, wans, observed)
  const fit = all.filter(({ address }) => !withoutEndpoint?.has(address) && isLed(address))
  const isKept = (one: Endpoint) => families.has(familyOf(one.address)) && isLastEndpoint(one, fit) && isWans(one.device)
  const kept = observed.endpoints.filter((one) => one.isOurs && isKept(one))
  // Somebody else's endpoint is replaced if it has a WAN's address, because an address can have only one; or a WAN's interface, because the
  // WAN's role and health decide what joins over it. One without an interface leaves by the main table over a WAN, and takes another WAN's place
  // in the limit of subflows.
  const onWans = observed.interfaces.filter(({ name }) => isWans(name)).flatMap(({ addresses }) => addresses)
  const isReplaced = ({ address, device, flags }: KernelEndpoint) =>
    [...all, ...kept].some((one) => one.address === address) ||
    (flags.includes('subflow') && (device === undefined || isWans(device) || onWans.some((one) => one.address === address)))
  const [foreign, now] = parted(
    observed.endpoints.filter((one) => !one.isOurs),
    isReplaced,
  )
  const places = Math.max(0, owned.count - foreign.length)
  const wanted = [...fit, ...kept.map(({ address, device }) => ({ address, device }))]
  const [first] = families
  const isFirst = ({ address }: Endpoint) => familyOf(address) === first
  const ours = wanted.length > places ? parted(wanted, (one) => !isFirst(one)).flat() : wanted
  const left = ours.slice(places)
  const before = observed.saved.endpoints.filter(isReplaced)
  const replaced = [...now.filter(isMade), ...before].map(({ address }) => address)
  return {
    endpoints: ours.slice(0, places),
    replaced: { now, before },
    notes: [
      ...[...new Set(replaced)].map(
        (address) =>
          `somebody else's MPTCP endpoint ${address} joins over a WAN: it makes way for ours, and is put back at the end`,
      ),
      ...left.filter(isFirst).map(({ address }) => `no MPTCP endpoint for ${address}: the kernel holds ${owned.count} at most`),
      ...(left.every(isFirst)
        ? []
        : [
            `IPv${first === 4 ? 6 : 4} is bonded over fewer WANs: the kernel holds ${owned.count} MPTCP endpoints, IPv${first} comes first`,
          ]),
    ],
  }
}

function parted<Item>(items: readonly Item[], test: (item: Item) => boolean): [no: Item[], yes: Item[]] {
  return [items.filter((item) => !test(item)), items.filter(test)]
}

/** Also for WANs that cannot be used now, so that the redirection stays while a link is away. */
function gatewaysOf(config: GatewayConfig, { mainRoutes, interfaces }: Observed, usable: readonly UsableWan[]): WanGateways {
  return new Map(
    config.wans.map((wan) => {
      const paths = usable.find((one) => one.config === wan)?.paths ?? []
      const learned = mainRoutes.filter((route) => route.device === wan.interface && route.destination === 'default')
      const needsNone = interfaces.find(({ name }) => name === wan.interface)?.pointToPoint
      const known = [...learned, ...paths].map(({ gateway }) => gateway)
      const gateways = [wan.gateway, wan.gateway6, ...known].filter((one) => one !== undefined)
      return [wan.interface, new Set([...gateways, ...(needsNone ? [undefined] : [])])]
    }),
  )
}

/** Replaces alternative names of interfaces by the kernel's. */
export function withRealNames(config: GatewayConfig, { interfaces }: Pick<Observed, 'interfaces'>): GatewayConfig {
  const real = (name: string) =>
    interfaces.some((one) => one.name === name)
      ? name
      : (interfaces.find(({ altNames }) => altNames.includes(name))?.name ?? name)
  return {
    ...config,
    lan: { interfaces: config.lan.interfaces.map(real) },
    wans: config.wans.map((wan) => ({ ...wan, interface: real(wan.interface) })),
  }
}

export interface DesiredOptions extends NetworkOptions {
  /** Where redirected connections were found not to arrive. */
  blocked?: readonly Blocked[]
  /** Features that this kernel's iptables lacks. */
  lacks?: ReadonlySet<Extra>
}

/** Without `redirect` all except the redirect rules. */
export function desired(given: GatewayConfig, observed: Observed, options: DesiredOptions = {}): Desired {
  const { blocked = [], unserved = new Map(), lacks = new Set() } = options
  const config = withRealNames(given, observed)
  const { wans, notes: troubles } = usableWans(config, observed)
  // Without a WAN we cannot help, and traffic over other interfaces may go on.
  const redirect = options.redirect !== false && (wans.length > 0 || config.on_hag_down === 'reject')
  const { endpoints, replaced, notes } = endpointsOf(wans, config, observed, options)
  const rest = unredirected(config, wans, observed, options)
  const { chains, notes: redirectNotes } = redirection(config, observed, gatewaysOf(config, observed, wans), {
    redirect,
    lacks,
    isInVain: (family, device) => unserved.has(family) || blocked.some((one) => one.family === family && one.device === device),
  })
  const { sysctls, notes: sysctlNotes } = withoutFixed(desiredSysctls(config, observed), observed)
  return {
    rules: [
      ...wans.flatMap(({ index, paths }) =>
        paths.map(({ family, source }) => sourceRule(family, source, index, config.rule_priority)),
      ),
      ...rest.rules,
    ],
    routes: [...wans.flatMap((wan) => routesOf(wan, config, observed)), ...rest.routes],
    endpoints,
    replaced,
    // One more than the extra subflows that a connection needs, because a dying one may still count. The kernel's limit is 8. We do not lower it
    // while we run: a HAG on the same machine may have raised it.
    subflows: Math.max(observed.subflows ?? 0, wans.length),
    copies: [],
    chains,
    sysctls,
    wans: wans.flatMap(({ config: wan, paths }) => {
      const fit = paths.filter((path) => !isAstray(path, wans, observed))
      const addresses = Object.fromEntries(fit.map(({ family, source }) => [`address${family}`, source]))
      return fit.length === 0 ? [] : [{ name: wan.name, interface: wan.interface, ...addresses }]
    }),
    notes: [
      ...observed.notes,
      ...observed.chainNotes,
      ...sysctlNotes,
      ...troubles,
      ...wans.flatMap(({ config: wan, paths }) =>
        paths.flatMap(({ source }) => {
          const trouble = observed.outside.astray.get(source)
          return trouble === undefined ? [] : [downNote(wan.name, trouble)]
        }),
      ),
      ...observed.outside.notes,
      ...notes,
      ...rest.notes,
      ...redirectNotes,
      ...unserved.values(),
      ...blocked.map(({ note }) => note),
      ...notesOn(observed, wans, config.lan.interfaces),
      ...remarksOnSettings(observed.sysctls),
    ],
  }
}

function notesOn({ interfaces }: Observed, wans: readonly UsableWan[], lan: readonly string[]): string[] {
  const find = (name: string) => interfaces.find((one) => one.name === name)
  // Unique local addresses are only for the home, so nobody expects them to reach the Internet.
  const has = (name: string, family: Family) =>
    find(name)?.addresses.some((one) => one.family === family && one.usable && !isInside(one.address, uniqueLocal)) ?? false
  return wans.flatMap(({ config: wan, paths }) =>
    families
      .filter(() => !lan.includes(wan.interface))
      .filter((family) => has(wan.interface, family) && !paths.some((path) => path.family === family))
      .map((family) => {
        const lacks = [...gatewaySources[family], `"${gatewayKey[family]}"`].join(' nor ')
        return `WAN ${wan.name}: no IPv${family}, because it has neither a ${lacks}`
      }),
  )
}
