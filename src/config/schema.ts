/** THE schema of both config files: what may be written, its defaults, and (by inference) the types the program works with. */
import * as z from 'zod/mini'
import { coversInternet, familyOf, isInside, parseAddress, parseCidr } from '../base/address.js'

const whole = (min: number, max: number) => z.int().check(z.minimum(min), z.maximum(max))
const nonEmpty = (max?: number) => z.string().check(z.minLength(1), ...(max === undefined ? [] : [z.maxLength(max)]))
const addressOr = (message: string) =>
  z.pipe(
    z.string().check(z.refine((text) => familyOf(text) !== undefined, message)),
    z.transform((text) => parseAddress(text)?.toString() ?? text),
  )
const address = addressOr('is no IP address')
const addressOf = (family: 4 | 6) => address.check(z.refine((text) => familyOf(text) === family, `is no IPv${family} address`))
const cidr = z.pipe(
  z.string(),
  z.transform((text, context) => {
    const parsed = parseCidr(text)
    if (parsed !== undefined) return parsed
    context.issues.push({ code: 'custom', message: 'is no network: write address/prefix, for instance 10.0.0.0/8', input: text })
    return z.NEVER
  }),
)
const loopback = ['127.0.0.0/8', '::1/128'].flatMap((text) => parseCidr(text) ?? [])
const port = whole(1, 65535)
const seconds = z.number().check(z.positive(), z.maximum(1_000_000))
// A name may have 15 bytes (IFNAMSIZ), an altname 127 (ALTIFNAMSIZ). The kernel refuses "/" and white space, and iptables reads a "+" at the end
// as a wildcard.
const interfaceName = z.string().check(z.regex(/^[^\s/+]{1,127}$/, 'is no interface name'))
// RFC 1123 section 2.1; SRV names have labels that begin with an underscore.
const hostName = z.string().check(
  z.maxLength(253),
  z.regex(
    /^(?!-)(?:_?[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*_?[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$/,
    'is no host name',
  ),
  z.refine((text) => familyOf(text) === undefined, 'is an address: write it as "address"'),
)
const name = z.string().check(z.regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/, 'is no name: use letters, digits, - and _'))

const common = {
  /** Threads that move bytes. Default: one for each core, at most 4. */
  workers: z.optional(whole(1, 16)),
  /** Default: as many as the descriptor limit allows. */
  max_connections: z.optional(whole(1, 1_000_000)),
  /** Of one client address, or IPv6 /64. Default: three quarters of max_connections, so that one client cannot take them all; near the end of them fewer. */
  max_connections_per_client: z.optional(whole(1, 1_000_000)),
  /** MiB that the kernel may hold for connections with slow readers; half of it for one client. Default: a 32nd of the memory. */
  buffer_memory_mb: z.optional(whole(1, 1_000_000)),
  /** RFC 5382 REQ-5 asks for at least 2 h 4 min. */
  idle_timeout_seconds: z._default(seconds, 7500),
  /** At SIGTERM: how long connections may go on before they are aborted. */
  drain_seconds: z._default(z.number().check(z.minimum(0), z.maximum(3600)), 10),
  /** Users of this group may ask for the status, beside root. */
  control_group: z.optional(nonEmpty(32)),
  log_level: z._default(z.enum(['error', 'warn', 'info', 'debug']), 'info'),
}

/** The message for two WANs with one address. */
export const sameAddress = (address: string) =>
  `${address} is another WAN's too, and Linux holds one MPTCP endpoint for an address: give one of the modems another network in its settings`

const wan = z.strictObject({
  name,
  interface: interfaceName,
  /** Default: taken from the interface's default route. Point-to-point devices need none. */
  gateway: z.optional(addressOf(4)),
  gateway6: z.optional(addressOf(6)),
  /** The source address, if the interface has more than one. Default: the default route's, or one in the gateway's network. */
  address: z.optional(addressOf(4)),
  address6: z.optional(addressOf(6)),
  /** Its volume costs money: while idle it is probed every 15 minutes, not every second. Default: true for all WANs but the first. */
  metered: z.optional(z.boolean()),
  /**
   * `normal`: always used; `overflow`: only while the normal ones are full; `backup`: only while no normal one is up. The last two are
   * for lines whose volume costs money.
   */
  role: z._default(z.enum(['normal', 'overflow', 'backup']), 'normal'),
  /** GB (10^9 bytes, both directions) in a calendar month, after which it becomes a backup. */
  monthly_gb: z.optional(z.number().check(z.positive(), z.maximum(1_000_000))),
})

const hag = z.strictObject({
  /** Either an address or a name. */
  address: z.optional(addressOr('is no IP address; write a host name as "name"')),
  /** A host name (A, AAAA), or an SRV name (RFC 2782; it begins with `_`). Looked up again when its records expire. */
  name: z.optional(hostName),
  port: z.optional(port),
  /** Lower ones are tried first (RFC 2782). Default: the place in the list. */
  priority: z.optional(whole(0, 65535)),
  /** Among HAGs of one priority: the share of gateways that choose this one (RFC 2782). */
  weight: z._default(whole(1, 65535), 1),
  username: z.optional(nonEmpty(255)),
  /** A file with the password in its first line, readable by root only. */
  password_file: z.optional(nonEmpty()),
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
    lan: z.strictObject({ interfaces: z.array(interfaceName).check(z.minLength(1)) }),
    // MPTCP allows at most 8 endpoints in a namespace.
    wans: z.array(wan).check(z.minLength(1), z.maxLength(8)),
    hags: z.array(hag).check(z.minLength(1)),
    /** Destinations that are not redirected. */
    bypass: z._default(z.array(cidr), []),
    listen: z.prefault(z.strictObject({ port: z._default(port, 12345) }), {}),
    /** SO_MARK of all connections to HAGs and servers, for rules (`ip rule ... fwmark`) and firewalls of others. Default: none. */
    mark: z.optional(whole(1, 0xffffffff)),
    /**
     * WAN n (from 0) has its `ip rule` at this priority plus n. Default: 700, before the usual rules of others that look at marks
     * (network/state.ts).
     */
    rule_priority: z.optional(whole(1, 32_750)),
    /** If no HAG can be reached: `direct` to the server over the best WAN without bonding, or a RST. */
    on_hag_down: z._default(z.enum(['direct', 'reject']), 'direct'),
    /** `reject`: refuses UDP port 443 from the LAN to a WAN, so that browsers use TCP, which is bonded, instead of QUIC, which is not. */
    quic: z._default(z.enum(['allow', 'reject']), 'allow'),
    /** Where the WANs' volume of the month is kept; used only with monthly_gb. */
    volume_file: z._default(nonEmpty(), '/var/lib/bondsocks/volume.json'),
    /**
     * How often an idle connection sends a packet over every WAN, so that no NAT or firewall on the way forgets it; carriers' often do
     * after one or two minutes. Default: 50, or more (at most 300) so that idle connections cost a metered WAN at most 100 MB a month.
     */
    keepalive_seconds: z.optional(whole(1, 7200)),
    /** At most so many connections to the HAG are kept ready for the next clients; 0: none. */
    prepared_connections: z._default(whole(0, 64), 16),
    /** Fractions are allowed, for milliseconds. */
    connect_timeout_seconds: z._default(seconds, 3),
    ...common,
  })
  .check(
    z.superRefine(
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
    ),
  )

export const hagSchema = z
  .strictObject({
    /** One address or several; `::` listens on both families. */
    listen: z.strictObject({
      address: z.union([address, z.array(address).check(z.minLength(1), z.maxLength(16))]),
      port: z._default(port, 1080),
    }),
    /** Who may use this HAG. Required, so that nobody runs an open proxy by mistake. */
    clients: z.array(cidr).check(z.minLength(1)),
    /** Lines of `name:password`; clients must then log in (RFC 1929). */
    users_file: z.optional(nonEmpty()),
    /** Loopback, link-local, private, multicast and own addresses are refused unless they lie in one of these. */
    allow: z._default(z.array(cidr), []),
    connect_timeout_seconds: z._default(seconds, 10),
    handshake_timeout_seconds: z._default(seconds, 10),
    /** Segments that an answer begins with; 0: the kernel's (ten, RFC 6928). */
    initial_window: z._default(whole(0, 64), 48),
    ...common,
  })
  .check(
    z.superRefine(
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
    ),
  )

export type GatewayConfig = z.output<typeof gatewaySchema>
export type HagConfig = z.output<typeof hagSchema>
export type WanConfig = GatewayConfig['wans'][number]
export type HagEntry = GatewayConfig['hags'][number]
