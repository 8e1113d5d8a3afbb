import type { Family, SocketAddress } from '../base/address.js'
import type { KernelCommand, Step } from './step.js'

/**
 * Everything we make is found again by these marks alone, so `remove` needs no config: rules and routes by protocol and table together, so
 * that what others have at the same numbers stays theirs. WAN n (config order) gets table `base + n`.
 */
export const owned = {
  base: 5800,
  /**
   * WAN n's rule has this priority plus n, unless `rule_priority` says otherwise. It is in front of all that others look up by marks: those of
   * older OpenWrt pbr (900), VRFs (1000), mwan3 (1001 to 3255) and Tailscale (5210 to 5270). A rule for one source address takes nothing of
   * theirs. Behind them, a mark that mangle OUTPUT sets after our route was chosen would have it chosen anew, by their rules.
   */
  rulePriority: 700,
  /** MPTCP's limit on endpoints in a namespace, and with it the config's limit on WANs. */
  count: 8,
  /** A HAG's copy of the main table. */
  hagTable: 5808,
  /** The default routes for what is not redirected. */
  mainTable: 5809,
  /**
   * Handed out from the highest down: the kernel numbers an endpoint without id upwards from the highest id ever given and starts again
   * at 1 after 255, so other people's endpoints stay out of this range while ours hold its top.
   */
  endpointIds: { lowest: 248, highest: 255 },
  chain: 'BONDSOCKS',
  /** Marks our rules and routes (rtnetlink(7), rtm_protocol; routing daemons have theirs below 200 too, none has this). */
  protocol: 158,
} as const

/** Of an interface (IFNAMSIZ); its other names may be longer, but only `ip` knows them. */
export const maxNameLength = 15

export const needsRoot = 'reading and changing the network set-up needs root (CAP_NET_ADMIN): run it with sudo'

export interface InterfaceAddress {
  family: Family
  address: string
  /** Bits of its network. */
  prefix: number
  /** Neither link-local, tentative, deprecated nor failed in duplicate address detection: fit to be a source address. */
  usable: boolean
  /** Privacy address (RFC 8981), which is replaced within a day. */
  temporary: boolean
}

export interface Interface {
  name: string
  up: boolean
  /** False: the cable is out, the modem is off. */
  carrier: boolean
  /** No neighbours to resolve (TUN, PPP): its default route needs no gateway. */
  pointToPoint: boolean
  addresses: InterfaceAddress[]
  /** `ip link property add dev eth0 altname enp3s0` */
  altNames: string[]
  /** Its link layer's address; empty where it has none. */
  mac: string
  isBridge: boolean
  /** The bridge that it is a port of. */
  bridge: string | undefined
}

/** A unicast route that is not ours, one for each next hop. In the kernel's order. */
export interface ForeignRoute {
  family: Family
  /** CIDR, bare address, or `default`. */
  destination: string
  device: string
  gateway: string | undefined
  /** The address that it gives to packets without one. */
  source: string | undefined
  metric: number
  /** MTU and the like, as words for `ip route add`. */
  metrics: string
  /** From a router advertisement. */
  advertised: boolean
  /** Unreachable, prohibit or blackhole: it leads nowhere. */
  isRefusing: boolean
}

/** What is asked of a packet's mark, or made of it. */
export interface Mark {
  value: number
  mask: number
}

/** A rule that is not ours. */
export interface ForeignRule {
  family: Family
  priority: number
  /** Of a rule that is for packets of this machine that have it. */
  mark: Mark | undefined
  /** As `ip -N rule show` prints it. */
  text: string
  table: string | undefined
  /** Blackhole, unreachable or prohibit. */
  isRefusal: boolean
}

/** What a DHCP client wrote down. */
export interface Lease {
  address: string
  gateway: string
}

/** A rule or a route of ours, as the words that follow `ip rule add` or `ip route add`: one spelling for one object. */
export interface Entry {
  family: Family
  spelling: string
}

export interface Endpoint {
  address: string
  device: string | undefined
}

export interface NumberedEndpoint extends Endpoint {
  id: number
}

export interface KernelEndpoint extends NumberedEndpoint {
  /** Sorted; a WAN's is just `subflow`. */
  flags: string[]
  /** We have made it. */
  isOurs: boolean
  port: number | undefined
}

/** A route as the words that follow `ip route add`, but for its table and its initial window (segments). */
export interface CopiedRoute {
  words: string
  window: string | undefined
  /** We have made it. */
  isOurs: boolean
}

/** The table with a HAG's initial window, in one family. */
export interface DesiredCopy {
  family: Family
  /** As the words that follow `ip rule add`. */
  rules: string[]
  /** In the kernel's order. */
  routes: CopiedRoute[]
}

/** What is there of it, and what it is made of. */
export interface RouteCopy {
  family: Family
  /** `isInPlace`: what it does not lead is led by the main table next. */
  rules: { spelling: string; isInPlace: boolean }[]
  /** As `ip -N rule show` prints them. */
  otherRules: string[]
  main: CopiedRoute[]
  routes: CopiedRoute[]
}

export type TableName = 'nat' | 'filter'

/** Our part of a table of iptables, in the spelling of iptables-save. */
export interface Chain {
  family: Family
  table: TableName
  /** `-A BONDSOCKS ...` */
  rules: string[]
  /** The rules of built-in chains that are ours: `-A PREROUTING ... -j BONDSOCKS`, or one that only counts. */
  jumps: string[]
}

/** A table of one flavour of iptables, and what is ours in it. */
export interface KernelChain extends Chain {
  /** `iptables`, `ip6tables`, or one of these with `-legacy`: what lists it with `-save` and changes it with `-restore`. */
  program: string
  /** The chain is there; without it there may still be jumps. */
  exists: boolean
  /** False: a table in which nothing of ours should be, because another one serves. */
  isUsed: boolean
  /** Of each jump: its place in its built-in chain, from 1. */
  places: number[]
  /** No rule of others stands before our jumps. */
  isInFront: boolean
  /** By interface: what was redirected since the rule was made, counted again with each repetition of a SYN. */
  redirected: ReadonlyMap<string, number>
  /** By interface: what all filters have let through to the port. */
  arrived: ReadonlyMap<string, number>
}

/** Values by path below /proc/sys, white space reduced to single blanks. */
export type Sysctls = ReadonlyMap<string, string>

/** A value that we changed. */
export interface Held<Value> {
  former: Value
  /** What we made of it; while a change is under way, also what it is about to become. */
  ours: Value[]
}

/** Whoever gave it another value after us owns it now, and it stays theirs. */
export function isHeld<Value>(held: Held<Value> | undefined, current: Value | undefined): held is Held<Value> {
  return held !== undefined && current !== undefined && held.ours.includes(current)
}

/** What to remember while a value goes from one to the other, whenever we are killed. */
export function joinHeld<Value>(before: Held<Value> | undefined, after: Held<Value> | undefined): Held<Value> | undefined {
  if (before === undefined || after === undefined) return before ?? after
  return { former: before.former, ours: [...new Set([...before.ours, ...after.ours])] }
}

/** The state file: what `remove` puts back. */
export interface Saved {
  sysctls: Record<string, Held<string>>
  subflows: Held<number> | undefined
  /** Somebody else's, in whose place ours are. */
  endpoints: KernelEndpoint[]
  /** Of our endpoints; undefined: it is not known. */
  ownIds: number[] | undefined
}

/** Where what this machine sends would go. */
export interface Outside {
  /** Why what is bound to these addresses of WANs gets to no HAG by its own WAN. */
  astray: ReadonlyMap<string, string>
  notes: string[]
}

export interface Observed {
  families: Family[]
  interfaces: Interface[]
  /** Of the main table. */
  mainRoutes: ForeignRoute[]
  /** Default routes of other tables. */
  otherDefaults: ForeignRoute[]
  /** The latest last. */
  leases: Lease[]
  rules: Entry[]
  /** Without the kernel's own, in the kernel's order. */
  otherRules: ForeignRule[]
  /** Those of our tables; others' are among them only as long as we have none for their destination. */
  routes: Entry[]
  endpoints: KernelEndpoint[]
  /** `ip mptcp limits`; undefined where the kernel has no MPTCP. */
  subflows: number | undefined
  /** A gateway looks at none. */
  copies: RouteCopy[]
  /** iptables sees what only crosses a bridge (br_netfilter). */
  isBridgeFiltering: Record<Family, boolean>
  /** A family without a nat table has none. */
  chains: KernelChain[]
  /** Remarks on the tables of iptables. */
  chainNotes: string[]
  /** What deletes things of ours from tables that iptables cannot list. */
  strays: KernelCommand[]
  sysctls: Sysctls
  /** Of those that are to be changed: which cannot be. */
  fixedSysctls?: ReadonlySet<string>
  saved: Saved
  /** What of the former values is lost, in a sentence, where the state file was damaged. */
  loss: string | undefined
  /** The state file is not what `saved` says: it is to be written anew. */
  isStateStale: boolean
  outside: Outside
  notes: string[]
}

export interface WanAddresses {
  name: string
  interface: string
  address4?: string
  address6?: string
}

export interface Desired {
  rules: Entry[]
  routes: Entry[]
  endpoints: Endpoint[]
  /** Somebody else's endpoints of WANs that are there, and those that we have taken away before: the others of these are put back. */
  replaced: { now: KernelEndpoint[]; before: KernelEndpoint[] }
  subflows: number | undefined
  copies: DesiredCopy[]
  chains: Chain[]
  sysctls: Sysctls
  wans: WanAddresses[]
  notes: string[]
}

/** What `remove` wants. */
export const nothing: Desired = {
  rules: [],
  routes: [],
  endpoints: [],
  replaced: { now: [], before: [] },
  subflows: undefined,
  copies: [],
  chains: [],
  sysctls: new Map(),
  wans: [],
  notes: [],
}

export interface Change {
  steps: Step[]
  /** Our endpoints once the steps are done. */
  endpoints: NumberedEndpoint[]
  /** Our part of the tables of iptables once the steps are done. */
  chains: KernelChain[]
  /** The state file while the steps run: everything that may have to be put back, whatever happens. */
  savedMeanwhile: Saved
  savedAfter: Saved
}

export interface NetworkPlan {
  steps: Step[]
  wans: WanAddresses[]
  /** One-line remarks. */
  notes: string[]
}

export interface NetworkOptions {
  /** False: everything but the redirect rules, for the time in which connections drain. Default true. */
  redirect?: boolean
  /**
   * Source addresses of either family that keep their routes and rules, for probes, but have no endpoint, so that connections leave. Where
   * no other endpoint of the family would be left, those that are there stay.
   */
  withoutEndpoint?: Pick<ReadonlySet<string>, 'has'>
  /**
   * Name of the WAN that a family's default route in the main table points to, for what is not redirected. Where left out or not usable:
   * the first usable one, in config order, of those not in `withoutEndpoint`.
   */
  best?: { readonly 4?: string | undefined; readonly 6?: string | undefined }
  /** Of the HAGs, the one most used first, for whose WANs there are endpoints before there are any for the other. Default: as the config has it. */
  hagFamilies?: readonly Family[]
  /** Those whose names were looked up too. Default: those that the config has addresses of. */
  hags?: readonly SocketAddress[]
  /** Families whose destinations no HAG can reach, and what to say of it: they are not redirected, or refused (`on_hag_down`). */
  unserved?: ReadonlyMap<Family, string>
  /** True: after a change of links, addresses, routes or rules; the tables of iptables are taken to be as the last apply left them. */
  quick?: boolean
}
