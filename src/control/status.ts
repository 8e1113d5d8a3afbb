/** THE schema of what the command `status` answers, and (by inference) its type. Ages are seconds, sizes bytes, rates bytes a second. */
import * as z from 'zod/mini'

const seconds = z.number()
const bytes = z.number()
const milliseconds = z.number()
const family = z.literal([4, 6])
const socketAddress = z.strictObject({ address: z.string(), port: z.number() })

const subflow = z.strictObject({
  /** Missing: none of ours. On a HAG there are no WANs. */
  wan: z.optional(z.string()),
  local: socketAddress,
  remote: socketAddress,
  joining: z.boolean(),
  rtt_ms: milliseconds,
  sent_bytes: bytes,
  received_bytes: bytes,
  packets_sent: z.number(),
  /** Of those: sent once more, because they were lost. */
  packets_sent_again: z.number(),
})

const connection = z.strictObject({
  client: socketAddress,
  /** What it was opened to: the HAG or, on a HAG, the server. */
  remote: socketAddress,
  protocol: z.optional(z.enum(['mptcp', 'tcp'])),
  age_seconds: seconds,
  /** Payload from the client, and to it. */
  sent_bytes: bytes,
  received_bytes: bytes,
  /** Empty for plain TCP. */
  subflows: z.array(subflow),
})

const service = z.strictObject({
  version: z.string(),
  kernel: z.string(),
  pid: z.number(),
  uptime_seconds: seconds,
  memory: z.strictObject({ resident_bytes: bytes, private_bytes: z.optional(bytes) }),
  descriptors: z.strictObject({ open: z.number(), limit: z.optional(z.number()) }),
  connections: z.strictObject({ open: z.number(), relaying: z.number(), limit: z.number(), limit_per_client: z.number() }),
  pipes: z.strictObject({ in_use: z.number(), pooled: z.number(), parked_bytes: bytes }),
  /** Limits that are reached now: `connections`, `descriptors`, `memory`, `pipes`. */
  limits_reached: z.array(z.string()),
  /** Clients that were refused so far, by cause; `others`: of those the log did not name. */
  refused: z.record(z.string(), z.number()),
  /** The kernel may hold so much for all connections together. */
  buffer_memory_bytes: bytes,
})

const link = z.strictObject({
  family,
  state: z.enum(['down', 'probing', 'up', 'degraded']),
  /** Empty if it is up. */
  why: z.string(),
  for_seconds: seconds,
  /** Missing while it has none. */
  address: z.optional(z.string()),
  /** Smoothed, and the smallest of the last minutes. */
  rtt_ms: z.optional(milliseconds),
  min_rtt_ms: z.optional(milliseconds),
  /** `stripped`: becomes plain TCP on the way; `blocked`: its SYNs vanish. */
  mptcp: z.enum(['unknown', 'yes', 'stripped', 'blocked']),
  /** Only small packets pass. */
  is_narrow: z.boolean(),
  /** It has an MPTCP endpoint: connections join over it. */
  has_endpoint: z.boolean(),
})

const wan = z.strictObject({
  name: z.string(),
  interface: z.string(),
  /** What it is for now; a WAN whose volume of the month is used up is a `backup`. */
  role: z.enum(['normal', 'overflow', 'backup']),
  /** By role, rates and volume. */
  is_in_use: z.boolean(),
  why_not_in_use: z.optional(z.string()),
  metered: z.boolean(),
  links: z.array(link),
  /** Of its interface, as far as they are known. */
  received_per_second: z.number(),
  sent_per_second: z.number(),
  received_bytes: z.optional(bytes),
  sent_bytes: z.optional(bytes),
  /** In both directions; only with `monthly_gb`. */
  month_bytes: z.optional(bytes),
  month_limit_bytes: z.optional(bytes),
})

const hag = z.strictObject({
  address: z.string(),
  port: z.number(),
  state: z.enum(['unknown', 'up', 'returning', 'down']),
  why: z.string(),
  for_seconds: seconds,
  /** New connections go to it first. */
  is_first: z.boolean(),
  /** It takes greeting, request and the client's first words at once. */
  pipelines: z.boolean(),
  /** Whether it reaches IPv6 destinations; missing: not known. */
  reaches_ipv6: z.optional(z.boolean()),
  /** WANs over which it refuses us. */
  refused: z.array(z.strictObject({ wan: z.string(), address: z.string(), why: z.string() })),
})

/** Connections to HAGs that are older than two seconds; of very many those that moved a byte last. */
const bundle = z.strictObject({
  connections: z.number(),
  /** Those that have a subflow over every WAN that they should use. */
  whole: z.number(),
  members: z.array(
    z.strictObject({
      wan: z.string(),
      family,
      connections: z.number(),
      joined: z.number(),
      /** Bytes that these connections have moved over it. */
      moved_bytes: bytes,
      packets_sent: z.number(),
      packets_sent_again: z.number(),
      /** Why it lacks connections, if the proof found that: a name of the event `wan-bundle`. */
      lack: z.optional(z.string()),
    }),
  ),
})

export const gatewayStatus = z.strictObject({
  role: z.literal('gateway'),
  service,
  /** Missing: the LAN is not redirected yet, or no longer. */
  is_lan_redirected: z.optional(z.boolean()),
  /** What happens to connections while no HAG serves. */
  on_hag_down: z.enum(['direct', 'reject']),
  /** What the network set-up has to say: what is missing, or in its way. */
  notes: z.array(z.string()),
  wans: z.array(wan),
  hags: z.array(hag),
  bundle,
  paths: z.array(
    z.strictObject({
      wan: z.string(),
      /** Missing: direct. */
      hag: z.optional(socketAddress),
      opened: z.number(),
      failed: z.strictObject({ connect: z.number(), greeting: z.number(), authentication: z.number(), request: z.number() }),
      fallbacks: z.number(),
      sent_bytes: bytes,
      received_bytes: bytes,
    }),
  ),
  prepared: z.strictObject({ kept: z.number(), limit: z.number() }),
  /** Those that moved a byte last. */
  busiest: z.array(connection),
})

export const hagStatus = z.strictObject({
  role: z.literal('hag'),
  service,
  listens: z.strictObject({
    addresses: z.array(z.string()),
    port: z.number(),
    protocol: z.enum(['mptcp', 'tcp']),
    authentication: z.boolean(),
  }),
  /** By user or, without users, by client address: a home has one for each WAN. Those with the most connections first. */
  homes: z.array(
    z.strictObject({
      home: z.string(),
      connections: z.number(),
      served: z.number(),
      /** Payload of ended connections, to and from the Internet. */
      sent_bytes: bytes,
      received_bytes: bytes,
    }),
  ),
  /** Those that moved a byte last. */
  busiest: z.array(connection),
})

export type GatewayStatus = z.infer<typeof gatewayStatus>
export type HagStatus = z.infer<typeof hagStatus>
export type ServiceStatus = z.infer<typeof service>
export type ConnectionStatus = z.infer<typeof connection>
