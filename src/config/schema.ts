/** THE schema of both config files: what may be written, its defaults, and (by inference) the types the program works with. */
import * as z from 'zod'
import { coversInternet, familyOf, isInside, parseAddress, parseCidr } from '../base/address.js'

const address = z
  .string()
  .refine((text) => familyOf(text) !== undefined, 'is no IP address')
  .transform((text) => parseAddress(text)?.toString() ?? text)
const addressOf = (family: 4 | 6) => address.refine((text) => familyOf(text) === family, `is no IPv${family} address`)
const cidr = z.string().transform((text, context) => {
  const parsed = parseCidr(text)
  if (parsed !== undefined) return parsed
  context.addIssue({ code: 'custom', message: 'is no network: write address/prefix, for instance 10.0.0.0/8' })
  return z.NEVER
})
const loopback = ['127.0.0.0/8', '::1/128'].flatMap((text) => parseCidr(text) ?? [])
const port = z.int().min(1).max(65535)
const seconds = z.number().positive().max(1_000_000)
// A name may have 15 bytes (IFNAMSIZ), an altname 127 (ALTIFNAMSIZ). The kernel refuses "/" and white space, and iptables reads a "+" at the end
// as a wildcard.
const interfaceName = z.string().regex(/^[^\s/+]{1,127}$/, 'is no interface name')
// RFC 1123 section 2.1; SRV names have labels that begin with an underscore.
const hostName = z
  .string()
  .max(253)
  .regex(
    /^(?!-)(?:_?[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*_?[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$/,
    'is no host name',
  )
  .refine((text) => familyOf(text) === undefined, 'is an address: write it as "address"')
const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/, 'is no name: use letters, digits, - and _')

const common = {
  /** Threads that move bytes. Default: one for each core, at most 4. */
  workers: z.int().min(1).max(16).optional(),
  /** Default: as many as the descriptor limit allows. */
  max_connections: z.int().min(1).max(1_000_000).optional(),
  /** Of one client address, or IPv6 /64. Default: three quarters of max_connections, so that one client cannot take them all. */
  max_connections_per_client: z.int().min(1).max(1_000_000).optional(),
  /** MiB that the kernel may hold for connections with slow readers; half of it for one client. Default: a 32nd of the memory. */
  buffer_memory_mb: z.int().min(1).max(1_000_000).optional(),
  /** RFC 5382 REQ-5 asks for at least 2 h 4 min. */
  idle_timeout_seconds: seconds.default(7500),
  /** At SIGTERM: how long connections may go on before they are aborted. */
  drain_seconds: z.number().min(0).max(3600).default(10),
  log_level: z.enum(['error', 'warn', 'info', 'debug']).default('info'),
}

/** The message for two WANs with one address. */
export const sameAddress = (address: string) =>
  `${address} is another WAN's too, and Linux holds one MPTCP endpoint for an address: give one of the modems another network in its settings`

const wan = z.strictObject({
  name,
  interface: interfaceName,
  /** Default: taken from the interface's default route. Point-to-point devices need none. */
  gateway: addressOf(4).optional(),
  gateway6: addressOf(6).optional(),
  /** The source address, if the interface has more than one. Default: the default route's, or one in the gateway's network. */
  address: addressOf(4).optional(),
  address6: addressOf(6).optional(),
  /** Its volume costs money: while idle it is probed every 15 minutes, not every second. Default: true for all WANs but the first. */
  metered: z.boolean().optional(),
  /**
   * `normal`: always used; `overflow`: only while the normal ones are full; `backup`: only while no normal one is up. The last two are
   * for lines whose volume costs money.
   */
  role: z.enum(['normal', 'overflow', 'backup']).default('normal'),
  /** GB (10^9 bytes, both directions) in a calendar month, after which it becomes a backup. */
  monthly_gb: z.number().positive().max(1_000_000).optional(),
})

const hag = z.strictObject({
  /** Either an address or a name. */
  address: address.optional(),
  /** A host name (A, AAAA), or an SRV name (RFC 2782; it begins with `_`). Looked up again when its records expire. */
  name: hostName.optional(),
  port: port.optional(),
  /** Lower ones are tried first (RFC 2782). Default: the place in the list. */
  priority: z.int().min(0).max(65535).optional(),
  /** Among HAGs of one priority: the share of gateways that choose this one (RFC 2782). */
  weight: z.int().min(1).max(65535).default(1),
  username: z.string().min(1).max(255).optional(),
  /** A file with the password in its first line, readable by root only. */
  password_file: z.string().min(1).optional(),
})

const isObject = (value: unknown) => typeof value === 'object' && value !== null
const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])

/** The texts that a list's entries have under a key. */
const textsOf = (entries: unknown, key: string) =>
  listOf(entries).map((entry) => {
    const value: unknown = Object(entry)[key]
    return typeof value === 'string' ? value : undefined
  })

export const gatewaySchema = z
  .strictObject({
    lan: z.strictObject({ interfaces: z.array(interfaceName).min(1) }),
    // MPTCP allows at most 8 endpoints in a namespace.
    wans: z.array(wan).min(1).max(8),
    hags: z.array(hag).min(1),
    /** Destinations that are not redirected. */
    bypass: z.array(cidr).default([]),
    listen: z.strictObject({ port: port.default(12345) }).prefault({}),
    /** SO_MARK of all connections to HAGs and servers, for rules (`ip rule ... fwmark`) and firewalls of others. Default: none. */
    mark: z.int().min(1).max(0xffffffff).optional(),
    /**
     * WAN n (from 0) has its `ip rule` at this priority plus n. Default: 700, before the usual rules of others that look at marks
     * (network/state.ts).
     */
    rule_priority: z.int().min(1).max(32_750).optional(),
    /** If no HAG can be reached: `direct` to the server over the best WAN without bonding, or a RST. */
    on_hag_down: z.enum(['direct', 'reject']).default('direct'),
    /** `reject`: refuses UDP port 443 from the LAN to a WAN, so that browsers use TCP, which is bonded, instead of QUIC, which is not. */
    quic: z.enum(['allow', 'reject']).default('allow'),
    /** Where the WANs' volume of the month is kept; used only with monthly_gb. */
    volume_file: z.string().min(1).default('/var/lib/bondsocks/volume.json'),
    /**
     * How often an idle connection sends a packet over every WAN, so that no NAT or firewall on the way forgets it; carriers' often do
     * after one or two minutes. Default: 50, or more (at most 300) so that idle connections cost a metered WAN at most 100 MB a month.
     */
    keepalive_seconds: z.int().min(1).max(7200).optional(),
    /** At most so many connections to the HAG are kept ready for the next clients; 0: none. */
    prepared_connections: z.int().min(0).max(64).default(16),
    /** Fractions are allowed, for milliseconds. */
    connect_timeout_seconds: seconds.default(3),
    ...common,
  })
  .superRefine(
    // Runs even if there are other faults, so values may be missing or of any type.
    (config: { wans?: unknown; hags?: unknown }, context) => {
      for (const key of ['name', 'interface', 'address', 'address6']) {
        const values = textsOf(config.wans, key)
        values.forEach((value, index) => {
          if (value === undefined || values.indexOf(value) === index) return
          const message = key.startsWith('address') ? sameAddress(value) : `${value} is used twice`
          context.addIssue({ code: 'custom', path: ['wans', index, key], message })
        })
      }
      for (const [index, entry] of listOf(config.hags).entries()) {
        if (context.issues.some(({ path = [] }) => path[0] === 'hags' && path[1] === index)) continue
        const one = entry as z.output<typeof hag>
        const fault = (message: string) => context.addIssue({ code: 'custom', path: ['hags', index], message })
        if ((one.address === undefined) === (one.name === undefined)) fault('write either address or name')
        if (one.name?.startsWith('_') && one.port !== undefined) fault('the port comes from the SRV record: leave it out')
        if ((one.username === undefined) !== (one.password_file === undefined)) fault('username and password_file go together')
      }
      const roles = textsOf(config.wans, 'role')
      if (roles.length > 0 && roles.every((role) => role === 'backup' || role === 'overflow'))
        context.addIssue({ code: 'custom', path: ['wans'], message: 'one WAN at least must have the role normal' })
    },
    { when: ({ value }) => isObject(value) },
  )

export const hagSchema = z
  .strictObject({
    /** One address or several; `::` listens on both families. */
    listen: z.strictObject({ address: z.union([address, z.array(address).min(1).max(16)]), port: port.default(1080) }),
    /** Who may use this HAG. Required, so that nobody runs an open proxy by mistake. */
    clients: z.array(cidr).min(1),
    /** Lines of `name:password`; clients must then log in (RFC 1929). */
    users_file: z.string().min(1).optional(),
    /** Loopback, link-local, private, multicast and own addresses are refused unless they lie in one of these. */
    allow: z.array(cidr).default([]),
    connect_timeout_seconds: seconds.default(10),
    handshake_timeout_seconds: seconds.default(10),
    /** Segments that an answer begins with; 0: the kernel's (ten, RFC 6928). */
    initial_window: z.int().min(0).max(64).default(48),
    ...common,
  })
  .superRefine(
    ({ clients, users_file, listen }, context) => {
      const isLocal = [listen.address].flat().every((one) => isInside(one, loopback))
      if (users_file !== undefined || !coversInternet(clients) || isLocal) return
      const message =
        'they let everybody in, and nobody has to log in: this would be an open proxy for strangers. Set users_file, or list only the ' +
        'networks that your gateways come from'
      context.addIssue({ code: 'custom', path: ['clients'], message })
    },
    {
      when: ({ value, issues }) =>
        isObject(value) && !issues.some(({ path = [] }) => path[0] === 'clients' || path[0] === 'listen'),
    },
  )

export type GatewayConfig = z.output<typeof gatewaySchema>
export type HagConfig = z.output<typeof hagSchema>
export type WanConfig = GatewayConfig['wans'][number]
export type HagEntry = GatewayConfig['hags'][number]
