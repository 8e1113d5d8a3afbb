import type { Family, SocketAddress } from '../base/address.js'
import type { KernelCommand, Step } from './step.js'

/**
 * `remove` finds everything we make by these numbers alone, and needs no config. Rules and routes are ours only if both protocol and table
 * match, so that others' at the same numbers stay. WAN n (config order) gets table `base + n`.
 */
export const owned = {
  base: 5800,
  /**
   * WAN n's rule has this priority plus n, unless `rule_priority` says otherwise. It comes before the rules of others that look at marks:
   * older OpenWrt pbr (900), VRFs (1000), mwan3 (1001 to 3255) and Tailscale (5210 to 5270). Ours are for single source addresses, so they
   * take nothing from others. After theirs, a mark that mangle OUTPUT sets would make the kernel choose our route again, by their rules.
   */
  rulePriority: 700,
  /** MPTCP's limit on endpoints in a namespace, and with it the config's limit on WANs. */
  count: 8,
  /** The table with a HAG's copy of the main table. */
  hagTable: 5808,
  /** The table with the default routes for what is not redirected. */
  mainTable: 5809,
  /**
   * Given from the highest down. The kernel numbers an endpoint without id one above the highest id ever given, and after 255 begins at 1.
   * So others' endpoints stay out of this range while ours hold its top.
   */
  endpointIds: { lowest: 248, highest: 255 },
  chain: 'BONDSOCKS',
  /** Marks our rules and routes (rtnetlink(7), rtm_protocol; routing daemons have theirs below 200 too, none has this). */
  protocol: 158,
} as const

/** Of an interface's name (IFNAMSIZ). Its alternative names may be longer, but only `ip` knows them. */
export const maxNameLength = 15

export const needsRoot = 'reading and changing the network set-up needs root (CAP_NET_ADMIN): run it with sudo'

export interface InterfaceAddress {
  family: Family
  address: string
  /** The prefix length of its network. */
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
  /** The link layer's address; empty if it has none. */
  mac: string
  isBridge: boolean
  /** The bridge whose port it is. */
  bridge: string | undefined
}

/** A unicast route that is not ours, one for each next hop. In the kernel's order. */
export interface ForeignRoute {
  family: Family
  /** CIDR, bare address, or `default`. */
  destination: string
  device: string
  gateway: string | undefined
  /** The source address that it gives to packets without one. */
  source: string | undefined
  metric: number
  /** MTU and the like, as words for `ip route add`. */
  metrics: string
  /** It came from a router advertisement. */
  advertised: boolean
  /** Unreachable, prohibit or blackhole: it leads nowhere. */
  isRefusing: boolean
}

/** A condition for a packet's mark, or a value that is given to it. */
export interface Mark {
  value: number
  mask: number
}

/** A rule that is not ours. */
export interface ForeignRule {
  family: Family
  priority: number
  /** Set if the rule is for this machine's packets with that mark. */
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

/** A rule or route of ours, as the words behind `ip rule add` or `ip route add`. Each object has one spelling. */
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

/** What exists of the copy, and what it is made from. */
export interface RouteCopy {
  family: Family
  /** `isInPlace`: the next rule to decide is the main table's. */
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
  /** The chain exists. Without it there may still be jumps. */
  exists: boolean
  /** False: nothing of ours should be in this table, because another one is used. */
  isUsed: boolean
  /** The place of each jump in its built-in chain, from 1. */
  places: number[]
  /** No rule of others stands before our jumps. */
  isInFront: boolean
  /** By interface: SYNs that were redirected since the rule was made, repeated ones included. */
  redirected: ReadonlyMap<string, number>
  /** By interface: SYNs that all filters have let through to the port. */
  arrived: ReadonlyMap<string, number>
}

/** Values by path below /proc/sys, white space reduced to single blanks. */
export type Sysctls = ReadonlyMap<string, string>

/** A value that we changed. */
export interface Held<Value> {
  former: Value
  /** The value that we set; during a change, also the next one. */
  ours: Value[]
}

/** If somebody gave it another value after us, it is theirs, and stays. */
export function isHeld<Value>(held: Held<Value> | undefined, current: Value | undefined): held is Held<Value> {
  return held !== undefined && current !== undefined && held.ours.includes(current)
}

/** What to save while a value changes, so that it is right whenever we are killed. */
export function joinHeld<Value>(before: Held<Value> | undefined, after: Held<Value> | undefined): Held<Value> | undefined {
  if (before === undefined || after === undefined) return before ?? after
  return { former: before.former, ours: [...new Set([...before.ours, ...after.ours])] }
}

/** The state file: what `remove` puts back. */
export interface Saved {
  sysctls: Record<string, Held<string>>
  subflows: Held<number> | undefined
  /** Somebody else's endpoints that ours replace. */
  endpoints: KernelEndpoint[]
  /** The ids of our endpoints; undefined if not known. */
  ownIds: number[] | undefined
}

/** Where this machine's packets would go. */
export interface Outside {
  /** For each of these addresses of WANs: why packets from it reach no HAG over its own WAN. */
  astray: ReadonlyMap<string, string>
  notes: string[]
}

export interface Observed {
  families: Family[]
  interfaces: Interface[]
  /** Routes of the main table. */
  mainRoutes: ForeignRoute[]
  /** Default routes of other tables. */
  otherDefaults: ForeignRoute[]
  /** The latest one is the last. */
  leases: Lease[]
  rules: Entry[]
  /** Rules without the kernel's own, in the kernel's order. */
  otherRules: ForeignRule[]
  /** Routes of our tables; others' only if we have none for the same destination. */
  routes: Entry[]
  endpoints: KernelEndpoint[]
  /** `ip mptcp limits`; undefined where the kernel has no MPTCP. */
  subflows: number | undefined
  /** Empty for a gateway. */
  copies: RouteCopy[]
  /** iptables sees packets that only cross a bridge (br_netfilter). */
  isBridgeFiltering: Record<Family, boolean>
  /** None for a family without a nat table. */
  chains: KernelChain[]
  /** Remarks on the tables of iptables. */
  chainNotes: string[]
  /** Commands that delete things of ours from tables that iptables cannot list. */
  strays: KernelCommand[]
  sysctls: Sysctls
  /** The sysctls that we want to change and cannot. */
  fixedSysctls?: ReadonlySet<string>
  saved: Saved
  /** If the state file was damaged: a sentence about the former values that are lost. */
  loss: string | undefined
  /** The state file differs from `saved`, and has to be written again. */
  isStateStale: boolean
  outside: Outside
  notes: string[]
}

export const downNote = (wan: string, why: string | undefined): string => `WAN ${wan} is down: ${why}`

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
  /**
   * Somebody else's endpoints of present WANs, which ours replace, and those that we removed before; those that are not in `now` are put
   * back.
   */
  replaced: { now: KernelEndpoint[]; before: KernelEndpoint[] }
  subflows: number | undefined
  copies: DesiredCopy[]
  chains: Chain[]
  sysctls: Sysctls
  wans: WanAddresses[]
  notes: string[]
}

/** What should be after `remove`. */
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
  /** Our endpoints after the steps. */
  endpoints: NumberedEndpoint[]
  /** Our part of the tables of iptables after the steps. */
  chains: KernelChain[]
  /** The state file while the steps run: everything that may have to be put back. */
  savedMeanwhile: Saved
  savedAfter: Saved
}

export interface NetworkPlan {
  steps: Step[]
  wans: WanAddresses[]
  /** New connections of the LAN come to us: not without a WAN, unless `on_hag_down` is `reject`. */
  redirects: boolean
  /** One-line remarks. */
  notes: string[]
  /** A firewall drops what is redirected, so it is not, until somebody has mended that. */
  isBlocked?: boolean
}

export interface NetworkOptions {
  /** False: everything except the redirect rules, while connections drain. Default true. */
  redirect?: boolean
  /**
   * Source addresses that keep their routes and rules, for probes, but have no endpoint, so that connections leave them. If a family would
   * have no endpoint left, its present ones stay.
   */
  withoutEndpoint?: Pick<ReadonlySet<string>, 'has'>
  /**
   * Name of the WAN that a family's default route in the main table points to, for what is not redirected. Default, also if it is not
   * usable: the first usable one in config order that is not in `withoutEndpoint`.
   */
  best?: { readonly 4?: string | undefined; readonly 6?: string | undefined }
  /** Families of the HAGs, the most used one first: its WANs get endpoints before those of the other. Default: from the config. */
  hagFamilies?: readonly Family[]
  /** The HAGs, also those that are configured by name. Default: those with an address in the config. */
  hags?: readonly SocketAddress[]
  /** Families whose destinations no HAG can reach, and the reason. They are not redirected, or refused (`on_hag_down`). */
  unserved?: ReadonlyMap<Family, string>
  /** True: only links, addresses, routes or rules may have changed; the tables of iptables are taken to be as the last apply left them. */
  quick?: boolean
}
