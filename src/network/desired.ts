/** What should be: a pure function of the config and of what was observed. */
import type { GatewayConfig, WanConfig } from '../config/schema.js'
import { type Cidr, type Family, familyOf, isInside, parseCidr } from '../shared/address.js'
import { BondsocksError } from '../shared/errors.js'
import { redirectChain } from './kernel/firewall.js'
import { routeEntry } from './kernel/route.js'
import { sourceRule } from './kernel/rule.js'
import { type Chains, type Desired, type Endpoint, type Entry, type Interface, type Observed, owned } from './state.js'
import { desiredSysctls } from './tuning.js'

interface Path {
  family: Family
  source: string
  /** undefined on point-to-point devices, and where the main table's default route has none. */
  gateway: string | undefined
}

interface UsableWan {
  config: WanConfig
  index: number
  paths: Path[]
}

/** Throws the first WAN's trouble. The one place that decides what an unusable WAN means. */
export function usableWans(config: GatewayConfig, observed: Observed): UsableWan[] {
  return config.wans.map((wan, index) => {
    const usable = pathsOf(wan, observed)
    if (Array.isArray(usable)) return { config: wan, index, paths: usable }
    throw new BondsocksError('WAN_UNUSABLE', `WAN ${wan.name}: ${usable.trouble}`)
  })
}

function pathsOf(wan: WanConfig, observed: Observed): Path[] | { trouble: string } {
  const device = wan.interface
  const found = observed.interfaces.find(({ name }) => name === device)
  if (found === undefined) return { trouble: `interface ${device} does not exist: create it, or correct the config` }
  if (!found.up) return { trouble: `interface ${device} is down: ip link set ${device} up` }
  const sources = observed.families.flatMap((family) => {
    const source = sourceAddress(found, family)
    return source === undefined ? [] : [{ family, source }]
  })
  if (sources.length === 0) return { trouble: `interface ${device} has no address: start its DHCP or PPP client, or give it one` }
  const paths = sources.flatMap(({ family, source }) => {
    const way = defaultWay(wan, found, family, observed)
    return way === undefined ? [] : [{ family, source, ...way }]
  })
  if (paths.length > 0) return paths
  const key = sources.some(({ family }) => family === 4) ? 'gateway' : 'gateway6'
  return { trouble: `interface ${device} has no default route to learn the gateway from: set "${key}" in the config` }
}

/** The first fit address; in IPv6 one that stays (no privacy address) before others, and a global one before a unique local one. */
function sourceAddress({ addresses }: Interface, family: Family): string | undefined {
  const cost = ({ address, temporary }: Interface['addresses'][number]) =>
    (isInside(address, uniqueLocal) ? 2 : 0) + (temporary ? 1 : 0)
  return addresses.filter((one) => one.family === family && one.usable).sort((one, other) => cost(one) - cost(other))[0]?.address
}
const uniqueLocal = [parseCidr('fc00::/7')].filter((one) => one !== undefined)

function defaultWay(wan: WanConfig, { name, pointToPoint }: Interface, family: Family, { mainRoutes }: Observed) {
  if (pointToPoint) return { gateway: undefined }
  const configured = family === 4 ? wan.gateway : wan.gateway6
  if (configured !== undefined) return { gateway: configured }
  const [learned] = mainRoutes
    .filter((route) => route.family === family && route.device === name && route.destination === 'default')
    .sort((one, other) => one.metric - other.metric)
  return learned && { gateway: learned.gateway }
}

const linkLocal = 'fe80::/64'

/** Networks that the kernel reaches directly over a device. */
function connected({ mainRoutes }: Observed, device: string, family: Family): string[] {
  return mainRoutes
    .filter((route) => route.family === family && route.device === device && route.gateway === undefined)
    .map(({ destination }) => destination)
    .filter((destination) => destination !== 'default')
}

const networksOf = (texts: readonly string[]): Cidr[] => texts.map(parseCidr).filter((one) => one !== undefined)

function routesOf({ config: wan, index, paths }: UsableWan, lan: readonly string[], observed: Observed): Entry[] {
  const table = owned.base + index
  return paths.flatMap(({ family, source, gateway }) => {
    const own = connected(observed, wan.interface, family)
    const near = own.map((destination) => ({
      ...{ destination, device: wan.interface, table },
      source: destination === linkLocal ? undefined : source,
    }))
    // Without the LAN's networks an answer from the WAN's address to a LAN client would leave by the WAN.
    const inside = lan.flatMap((device) =>
      connected(observed, device, family)
        .filter((destination) => destination !== linkLocal)
        .map((destination) => ({ destination, device, table })),
    )
    const onlink = gateway !== undefined && !isInside(gateway, [...networksOf(own), ...networksOf([linkLocal])])
    const far = { destination: 'default', gateway, device: wan.interface, source, onlink, table }
    const routes = [...near, ...inside, far]
    const isFirst = ({ destination }: { destination: string }, at: number) =>
      routes.findIndex((one) => one.destination === destination) === at
    return routes.filter(isFirst).map((route) => routeEntry(family, route))
  })
}

/** MPTCP joins subflows of one family only, and there are eight places: no endpoint that no HAG could use. */
function endpointsOf(wans: readonly UsableWan[], config: GatewayConfig): Endpoint[] {
  const families = new Set(config.hags.map(({ address }) => familyOf(address)))
  return wans.flatMap(({ config: { interface: device }, paths }) =>
    paths.filter(({ family }) => families.has(family)).map(({ source }) => ({ address: source, device })),
  )
}

/** Throws `WAN_UNUSABLE`. Without `redirect` everything is there but the redirect rules. */
export function desired(config: GatewayConfig, observed: Observed, { redirect = true } = {}): Desired {
  const lan = config.lan.interfaces
  const wans = usableWans(config, observed)
  const endpoints = endpointsOf(wans, config)
  const chains: Chains = {}
  for (const family of redirect ? observed.families : []) {
    // From one LAN to another the gateway is just a router, and no HAG can reach those networks.
    const kept = [...networksOf(lan.flatMap((device) => connected(observed, device, family))), ...config.bypass]
    if (observed.chains[family]) chains[family] = redirectChain(family, lan, kept, config.listen.port)
  }
  // One more than the extra subflows that a connection needs: one that is about to die may still count.
  const needed = Math.min(owned.count, wans.length)
  const { subflows = 0, saved } = observed
  const former = saved.subflows?.ours === subflows ? saved.subflows.former : subflows
  return {
    rules: wans.flatMap(({ index, paths }) => paths.map(({ family, source }) => sourceRule(family, source, index))),
    routes: wans.flatMap((wan) => routesOf(wan, lan, observed)),
    endpoints: endpoints.slice(0, owned.count),
    subflows: Math.max(former, needed),
    chains,
    sysctls: desiredSysctls(config, observed),
    wans: wans.map(({ config: wan, paths }) => ({
      name: wan.name,
      interface: wan.interface,
      ...Object.fromEntries(paths.map(({ family, source }) => [`address${family}`, source])),
    })),
    notes: [...observed.notes, ...notesOn(config, observed, wans, endpoints)],
  }
}

function notesOn(
  config: GatewayConfig,
  observed: Observed,
  wans: readonly UsableWan[],
  endpoints: readonly Endpoint[],
): string[] {
  const exists = (name: string) => observed.interfaces.some((one) => one.name === name)
  const foreign = (address: string) =>
    observed.endpoints.find(
      (one) => one.address === address && (one.flags.join() !== 'subflow' || one.id < owned.endpointIds.first),
    )
  return [
    ...config.lan.interfaces.filter((name) => !exists(name)).map((name) => `LAN interface ${name} does not exist (yet)`),
    ...wans
      .filter(({ config: wan, paths }) => {
        const { addresses = [] } = observed.interfaces.find(({ name }) => name === wan.interface) ?? {}
        return !paths.some(({ family }) => family === 6) && addresses.some(({ family, usable }) => family === 6 && usable)
      })
      .map(
        ({ config: wan }) =>
          `WAN ${wan.name}: IPv6 is not used, because ${wan.interface} has no IPv6 default route and "gateway6" is not set`,
      ),
    ...endpoints
      .filter(({ address }) => foreign(address))
      .map(({ address }) => `endpoint ${address} is somebody else's (id ${foreign(address)?.id}) and stays as it is`),
    ...endpoints.slice(owned.count).map(({ address, device }) => `no place left for an MPTCP endpoint ${address} on ${device}`),
  ]
}
