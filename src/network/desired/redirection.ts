/** The iptables rules that redirect: a pure function of the config and of what was observed. */

import { type Cidr, type Family, formatCidr, isInside, parseCidr } from '../../base/address.js'
import type { GatewayConfig } from '../../config/schema.js'
import { type Chain, type ForeignRoute, type Interface, maxNameLength, type Observed, owned } from '../state.js'

const { chain } = owned

/** The note for a gateway without our part of the filter table. */
export const withoutGuard =
  "the redirector's port is open to the WANs, `quic` has no effect, and INPUT must let redirected connections in by itself"

/** The gateways of the default routes over a WAN, by its interface; undefined for one that needs none. */
export type WanGateways = ReadonlyMap<string, ReadonlySet<string | undefined>>

export interface Redirection {
  chains: Chain[]
  notes: string[]
}

export interface RedirectionOptions {
  /** False: nothing in the nat table, and QUIC is not rejected. */
  redirect: boolean
  /** Whether redirected connections from there do not arrive. They are then not redirected, or refused (`on_hag_down`). */
  isInVain(family: Family, device: string): boolean
  lacks: ReadonlySet<Extra>
}

/** Parts that we can do without: the match for bridges, and our part of the filter table. */
export type Extra = 'bpf' | 'filter'

/** An interface that does not exist yet may be configured by an alternative name, which iptables does not accept. */
const isKernelName = (name: string) => name.length <= maxNameLength

const isLinkLocal = (destination: string) => destination.startsWith('fe80:')

/** Networks that the kernel reaches directly over a device. */
export function connected({ mainRoutes }: Observed, device: string, family: Family): string[] {
  return mainRoutes
    .filter((route) => route.family === family && route.device === device && route.gateway === undefined && !route.isRefusing)
    .map(({ destination }) => destination)
    .filter((destination) => destination !== 'default')
}

const networksOf = (texts: readonly string[]): Cidr[] => texts.map(parseCidr).filter((one) => one !== undefined)

export function redirection(
  config: GatewayConfig,
  observed: Observed,
  wanGateways: WanGateways,
  { redirect, isInVain, lacks }: RedirectionOptions,
): Redirection {
  const lan = [...new Set(config.lan.interfaces)]
  const find = (name: string) => observed.interfaces.find((one) => one.name === name)
  const elsewhere = new Map<Family, Elsewhere[]>()
  const rejectQuic = redirect && config.quic === 'reject'
  const chains = observed.families.flatMap((family): Chain[] => {
    // From one LAN to another the gateway is just a router, and no HAG can reach those networks.
    const near = lan.flatMap((device) => connected(observed, device, family)).filter((network) => !isLinkLocal(network))
    const others = destinationsElsewhere(observed.mainRoutes, wanGateways, family)
    // No note about a modem's own network: it is always reached directly.
    elsewhere.set(
      family,
      others.filter(({ network, device, isKept }) => isKept && !near.includes(network) && !wanGateways.has(device)),
    )
    const sides = lan.filter(isKernelName).flatMap((name) => sidesOf(name, observed, wanGateways, family))
    const inVain = new Set(lan.filter((device) => isInVain(family, device)))
    const refused = config.on_hag_down === 'reject' ? inVain : new Set<string>()
    const open = sides.filter(({ device }) => !inVain.has(device) || refused.has(device))
    const bridges = observed.isBridgeFiltering[family] && !lacks.has('bpf') ? lan.map(find).filter((one) => one?.isBridge) : []
    const kept = [...networksOf(near), ...config.bypass]
    return [
      ...(redirect && open.length > 0
        ? [redirectChain({ family, sides: open, bridges, kept, others, port: config.listen.port, refused })]
        : []),
      ...(lacks.has('filter')
        ? []
        : [
            guardChain({
              family,
              sides,
              rejectQuic,
              port: config.listen.port,
              refused,
              wans: [...wanGateways.keys()].filter(isKernelName),
            }),
          ]),
    ]
  })
  return { chains, notes: [...notesOnLan(lan, find), ...notesOnLacks(lacks), ...notesOnRoutes([...elsewhere.values()].flat())] }
}

/** Where the LAN's connections come in, as words of iptables: an interface and, if it is also a WAN, the LAN's networks. */
interface Side {
  device: string
  words: string
}

function sidesOf(device: string, observed: Observed, wanGateways: WanGateways, family: Family): Side[] {
  const gateways = wanGateways.get(device)
  if (gateways === undefined) return [{ device, words: `-i ${device}` }]
  const networks = connected(observed, device, family).filter((network) => !isLinkLocal(network))
  const isOfWan = (network: string) => [...gateways].some((one) => one !== undefined && isInside(one, networksOf([network])))
  const ofLan = networks.filter((network) => !isOfWan(network))
  // If there is only one network, the modem is one of the LAN's devices.
  return (ofLan.length > 0 ? ofLan : networks).map((network) => ({ device, words: `-s ${network} -i ${device}` }))
}

interface Elsewhere {
  network: string
  device: string
  /** False: it leads to a WAN, although it lies in a network that does not. */
  isKept: boolean
}

/**
 * Destinations for which the main table has another route than a WAN's default: other networks behind this machine, tunnels, the modems'
 * own. The longest prefixes come first, as the kernel looks them up. Those that say the same as a shorter one are left out.
 */
export function destinationsElsewhere(routes: readonly ForeignRoute[], wanGateways: WanGateways, family: Family): Elsewhere[] {
  const leadsToWan = ({ device, gateway, isRefusing }: ForeignRoute) =>
    !isRefusing && wanGateways.get(device)?.has(gateway) === true
  const byNetwork = new Map<string, Elsewhere & { cidr: Cidr; metric: number }>()
  for (const route of routes) {
    const cidr = route.destination === 'default' ? undefined : parseCidr(route.destination)
    if (route.family !== family || cidr === undefined || isLinkLocal(route.destination)) continue
    const network = formatCidr(cidr)
    const isKept = !leadsToWan(route)
    const known = byNetwork.get(network)
    // The smallest metric counts. Of several next hops, one that leads elsewhere is enough.
    if (known !== undefined && (known.metric < route.metric || (known.metric === route.metric && known.isKept))) continue
    byNetwork.set(network, { network, device: route.device, isKept, cidr, metric: route.metric })
  }
  const all = [...byNetwork.values()].sort((one, other) => other.cidr.prefix - one.cidr.prefix)
  const saysSo = (one: (typeof all)[number], at: number) => {
    const enclosing = all.slice(at + 1).find(({ cidr }) => isInside(one.cidr.address.toString(), [cidr]))
    return one.isKept !== (enclosing?.isKept ?? false)
  }
  return all.filter(saysSo).map(({ network, device, isKept }) => ({ network, device, isKept }))
}

/** How iptables-save writes a destination: nothing for one that matches everything. */
const to = (network: string) => (network.endsWith('/0') ? '' : ` -d ${network}`)

/**
 * Redirects the LAN's TCP to `port`, except connections to the gateway itself (LOCAL is looked up in the local table, so it follows address
 * changes), to networks in `kept`, and to destinations that the main table leads elsewhere. Counts what all filters let through to the
 * port.
 */
function redirectChain(options: {
  family: Family
  sides: readonly Side[]
  bridges: readonly (Interface | undefined)[]
  kept: readonly Cidr[]
  others: readonly Elsewhere[]
  port: number
  refused: ReadonlySet<string>
}): Chain {
  const { family, sides, bridges, kept, others, port, refused } = options
  const types = family === 4 ? ['LOCAL', 'BROADCAST', 'MULTICAST'] : ['LOCAL', 'MULTICAST']
  const networks = new Set(kept.filter(({ address }) => (address.kind() === 'ipv4') === (family === 4)).map(formatCidr))
  const devices = [...new Set(sides.map(({ device }) => device))]
  const redirects = devices.map((device) => `-i ${device} -p tcp -j REDIRECT --to-ports ${port}`)
  return {
    family,
    table: 'nat',
    rules: [
      ...bridges.flatMap((bridge) =>
        bridge === undefined ? [] : [`-A ${chain} -i ${bridge.name} ${notFor(bridge.mac)} -j RETURN`],
      ),
      ...types.map((type) => `-A ${chain} -m addrtype --dst-type ${type} -j RETURN`),
      ...[...networks].map((network) => `-A ${chain}${to(network)} -j RETURN`),
      ...others
        .filter(({ network }) => !networks.has(network))
        .flatMap(({ network, isKept }) =>
          (isKept ? ['-j RETURN'] : redirects).map((rest) => `-A ${chain}${to(network)} ${rest}`),
        ),
      ...redirects.map((rest) => `-A ${chain} ${rest}`),
    ],
    jumps: [
      ...sides.map(({ words }) => `-A PREROUTING ${words} -p tcp -j ${chain}`),
      ...devices
        .filter((device) => !refused.has(device))
        .map((device) => `-A INPUT -i ${device} -p tcp -m tcp --dport ${port} -m comment --comment ${chain}`),
    ],
  }
}

/**
 * Matches frames for another machine on the bridge, which iptables sees if net.bridge.bridge-nf-call-iptables is 1. A classic BPF program,
 * because no match of iptables knows a frame's destination. SKF_LL_OFF is where the link layer's header begins.
 */
function notFor(mac: string): string {
  const [high = 0, low = 0] = [mac.slice(0, 11), mac.slice(12)].map((part) => Number.parseInt(part.replaceAll(':', ''), 16))
  const header = 0xff_e0_00_00
  const program = [
    ...['6', `32 0 0 ${header}`, `21 0 3 ${high}`, `40 0 0 ${header + 4}`, `21 0 1 ${low}`],
    ...['6 0 0 0', '6 0 0 1'],
  ]
  return `-m bpf --bytecode "${program.join(',')}"`
}

/**
 * Accepts redirected connections of the LAN, whatever the host's firewall says, unless they are to be refused; nobody else may connect to
 * the port. If wanted, refuses QUIC to a WAN, so that browsers use TCP at once.
 */
function guardChain(options: {
  family: Family
  sides: readonly Side[]
  wans: readonly string[]
  port: number
  rejectQuic: boolean
  refused: ReadonlySet<string>
}): Chain {
  const { family, sides, wans, port, rejectQuic, refused } = options
  const unreachable = family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable'
  const devices = [...new Set(sides.map(({ device }) => device))]
  return {
    family,
    table: 'filter',
    rules: [
      ...devices
        .filter((device) => !refused.has(device))
        .map((device) => `-A ${chain} -i ${device} -p tcp -m conntrack --ctstate DNAT -j ACCEPT`),
      `-A ${chain} -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset`,
      ...(rejectQuic ? [`-A ${chain} -p udp -j REJECT --reject-with ${unreachable}`] : []),
    ],
    jumps: [
      `-A INPUT ! -i lo -p tcp -m tcp --dport ${port} -j ${chain}`,
      ...(rejectQuic
        ? sides.flatMap(({ words }) => wans.map((wan) => `-A FORWARD ${words} -o ${wan} -p udp -m udp --dport 443 -j ${chain}`))
        : []),
    ],
  }
}

function notesOnLan(lan: readonly string[], find: (name: string) => Interface | undefined): string[] {
  return lan.flatMap((name) => {
    const found = find(name)
    if (found === undefined) return [`LAN interface ${name} does not exist: what comes in there is redirected once it does`]
    if (found.bridge === undefined) return []
    return [
      `LAN interface ${name} is a port of the bridge ${found.bridge}, and what comes in there comes from ${found.bridge}, ` +
        `so nothing is redirected: write ${found.bridge} in its place (lan.interfaces)`,
    ]
  })
}

function notesOnLacks(lacks: ReadonlySet<Extra>): string[] {
  const sentences = {
    bpf: 'this kernel has no xt_bpf, so what only crosses the bridge of the LAN to another router is redirected too: set net.bridge.bridge-nf-call-iptables=0',
    filter: `this kernel lacks a match or target of iptables (conntrack, REJECT): ${withoutGuard}`,
  }
  return [...lacks].map((one) => sentences[one])
}

const maxNamed = 8

function notesOnRoutes(elsewhere: readonly Elsewhere[]): string[] {
  if (elsewhere.length === 0) return []
  const named = elsewhere.slice(0, maxNamed).map(({ network, device }) => `${network} (${device})`)
  const rest = elsewhere.length > maxNamed ? ` and ${elsewhere.length - maxNamed} more` : ''
  return [`not redirected, because the main table leads there by itself: ${named.join(', ')}${rest}`]
}
