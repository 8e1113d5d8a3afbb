/** Reads what the kernel has: our things, and those of others that we need to know. */
import * as z from 'zod/mini'
import type { Family } from '../base/address.js'
import { BondsocksError } from '../base/errors.js'
import { mptcpKernel } from '../base/kernel-version.js'
import { copyCommands, parseCopy } from './kernel/copy.js'
import { readJson } from './kernel/json.js'
import type { Kernel } from './kernel/kernel.js'
import { looksOurs, parseEndpoints, parseSubflowLimit } from './kernel/mptcp.js'
import { parseRoutes } from './kernel/route.js'
import { parseForeignRules, parseRules } from './kernel/rule.js'
import { mptcpSysctls } from './mptcp-settings.js'
import { lossOf, parseSaved } from './saved.js'
import { type Interface, needsRoot, type Observed, type RouteCopy, type Saved } from './state.js'
import { observeTables, type Tables } from './tables.js'

const sysctls = [
  ...mptcpSysctls,
  'net/mptcp/blackhole_timeout',
  'net/mptcp/close_timeout',
  'net/ipv4/tcp_rmem',
  'net/ipv4/tcp_wmem',
  'net/ipv4/tcp_mtu_probing',
  'net/ipv4/ip_forward',
  'net/ipv4/conf/*/forwarding',
  'net/ipv4/conf/*/rp_filter',
  'net/ipv4/conf/all/accept_redirects',
  'net/ipv6/conf/*/forwarding',
  'net/ipv6/conf/*/accept_ra',
  'net/bridge/bridge-nf-call-iptables',
  'net/bridge/bridge-nf-call-ip6tables',
]

export const notKept =
  '/run cannot be written (read-only, or full): former sysctls are put back only by an orderly end, and nothing keeps a second gateway away; ' +
  'make room, or mount a tmpfs there, with --tmpfs /run for a container'

interface ObserveOptions {
  lenient?: boolean
  copies?: boolean
  tables?: Tables | undefined
  known?: Saved | undefined
}

/**
 * `lenient` is for `remove`: a missing program or feature cannot hold anything of ours. Otherwise a lack of iptables or of MPTCP in the
 * kernel is an error; a lack of CAP_NET_ADMIN or `ip` always is. With `tables`, those of iptables are not read but taken from there.
 * `known`: what was saved last, in case the state file is damaged or gone. `copies`: also reads the tables of HAGs.
 */
export async function observe(
  kernel: Kernel,
  { lenient = false, copies = false, tables, known }: ObserveOptions = {},
): Promise<Observed> {
  if (!(await kernel.mayAdminister())) {
    throw new BondsocksError('NOT_ROOT', needsRoot)
  }
  const [values, stateText, keepsState] = await Promise.all([
    kernel.readSysctls(sysctls),
    kernel.readState(),
    kernel.keepsState(),
  ])
  const stored = parseSaved(stateText)
  const isKnown = known !== undefined && (stored.isDamaged || stateText === undefined)
  const saved = isKnown ? known : stored.saved
  const notes: string[] = []
  if (!keepsState) notes.push(notKept)
  const hasMptcp = values.has('net/mptcp/enabled')
  if (!hasMptcp && !lenient) {
    throw new BondsocksError('NO_MPTCP', `this kernel has no MPTCP (no /proc/sys/net/mptcp): use ${mptcpKernel}`)
  }
  const families: Family[] = values.has('net/ipv6/conf/all/forwarding') ? [4, 6] : [4]
  if (families.length === 1) notes.push('IPv6 is left alone: this kernel has none')

  // One process for each family. `root` makes `ip` list the routes of one family only, although it was started without one.
  const common = ['address show', ...bridgeCommands, 'rule show', 'route show table all root 0.0.0.0/0']
  const mptcp = ['mptcp endpoint show', 'mptcp limits show']
  const [[links, bridges, ports, rules4, routes4, endpoints, limits], [rules6, routes6]] = await Promise.all([
    showAll(kernel, [], [...common, ...(hasMptcp ? mptcp : [])]),
    families.includes(6) ? showAll(kernel, ['-6'], ['rule show', 'route show table all']) : [],
  ])
  // Now, because a lease may be written while we look, before the address is set.
  const leases = await kernel.readLeases()
  const subflows = hasMptcp ? parseSubflowLimit(limits ?? '') : undefined
  const loss = stored.isDamaged && !isKnown ? lossOf({ sysctls: values, saved, subflows }) : undefined
  if (loss !== undefined) notes.push(loss)
  const firewall = tables ?? (await observeTables(kernel, families, lenient))
  const rules = [...parseRules(rules4, 4), ...parseRules(rules6, 6)]
  // If the state file is lost: our endpoint is made after our rule and deleted before it, so it is ours only if there is a rule.
  const isKept = ({ id }: { id: number }) => saved.ownIds?.includes(id) ?? rules.length > 0
  const parsed = [parseRoutes(routes4, 4), parseRoutes(routes6, 6)]
  return {
    families,
    interfaces: parseInterfaces(links, bridges, ports),
    ...firewall,
    sysctls: values,
    saved,
    leases,
    notes,
    outside: { astray: new Map(), notes: [] },
    mainRoutes: parsed.flatMap(({ main }) => main),
    routes: parsed.flatMap(({ ours }) => ours),
    otherDefaults: parsed.flatMap(({ otherDefaults }) => otherDefaults),
    rules,
    isBridgeFiltering: {
      4: values.get('net/bridge/bridge-nf-call-iptables') === '1',
      6: values.get('net/bridge/bridge-nf-call-ip6tables') === '1',
    },
    otherRules: [...parseForeignRules(rules4, 4), ...parseForeignRules(rules6, 6)],
    endpoints: parseEndpoints(endpoints).map((one) => ({ ...one, isOurs: looksOurs(one) && isKept(one) })),
    subflows,
    copies: copies ? await Promise.all(families.map((family) => observeCopy(kernel, family))) : [],
    loss,
    isStateStale: stored.isDamaged || (isKnown && Object.keys(saved.sysctls).length > 0),
  }
}

export async function observeCopy(kernel: Kernel, family: Family): Promise<RouteCopy> {
  return parseCopy(await capture(kernel, ['ip', `-${family}`, '-N', '-o', '-batch', '-'], copyCommands), family)
}

/** The output of each of these commands of `ip`, from one process. */
async function showAll(kernel: Kernel, options: string[], commands: readonly string[]): Promise<string[]> {
  const argv = ['ip', ...options, '-N', '-j']
  const { code, stdout } = await kernel.run([...argv, '-batch', '-'], `${commands.join('\n')}\n`)
  const lines = stdout.split('\n').filter((line) => line.trim() !== '')
  if (code === 0 && lines.length === commands.length) return lines
  // If one fails, it is run alone for its own message. So is each if the number of lines is not as expected: some iproute2 might print nothing,
  // or several lines, for `[]`.
  const shown = []
  for (const command of commands) shown.push(await capture(kernel, [...argv, ...command.split(' ')]))
  return shown
}

/** Runs a command that must succeed and returns what it printed. */
export async function capture(kernel: Kernel, argv: string[], input?: string): Promise<string> {
  const { code, stdout, stderr } = await kernel.run(argv, input)
  if (code === 0) return stdout
  throw commandFailed(argv, code, stderr || stdout)
}

export function commandFailed(argv: readonly string[], code: number, output: string): BondsocksError {
  if (code === 127 && argv[0] === 'ip') return new BondsocksError('NO_IPROUTE2', 'ip is missing: install the package iproute2')
  return new BondsocksError('COMMAND_FAILED', `"${argv.join(' ')}" failed: ${oneLine(output) || `exit code ${code}`}`)
}

const oneLine = (text: string) => text.trim().replace(/\s*\n\s*/g, '; ')

const bridgeCommands = ['link show type bridge', 'link show type bridge_slave']

const link = z.object({
  ifname: z.optional(z.string()),
  altnames: z._default(z.array(z.string()), []),
  address: z._default(z.string(), ''),
  master: z.optional(z.string()),
  flags: z._default(z.array(z.string()), []),
  addr_info: z._default(
    z.array(
      z.object({
        family: z.optional(z.string()),
        local: z.optional(z.string()),
        prefixlen: z._default(z.number(), 0),
        scope: z.optional(z.string()),
        tentative: z.optional(z.boolean()),
        dadfailed: z.optional(z.boolean()),
        deprecated: z.optional(z.boolean()),
        temporary: z._default(z.boolean(), false),
      }),
    ),
    [],
  ),
})

/** Reads `ip -j address show`, with or without -N, and which interfaces are bridges or ports of bridges. */
function parseInterfaces(json?: string, bridgeJson?: string, portJson?: string): Interface[] {
  const bridges = new Set(readJson(link, bridgeJson, 'link').map(({ ifname }) => ifname))
  const masters = new Map(readJson(link, portJson, 'link').map(({ ifname, master }) => [ifname, master]))
  return readJson(link, json, 'address').flatMap(({ ifname, flags, addr_info, altnames, address }) =>
    ifname === undefined
      ? []
      : [
          {
            name: ifname,
            altNames: altnames,
            mac: address,
            isBridge: bridges.has(ifname),
            bridge: masters.get(ifname),
            up: flags.includes('UP'),
            // LOWER_UP goes at once. NO-CARRIER may come a second later if links changed shortly before (the kernel's link watch).
            carrier: flags.includes('LOWER_UP') && !flags.includes('NO-CARRIER'),
            pointToPoint: flags.includes('POINTOPOINT') || flags.includes('NOARP'),
            addresses: addr_info
              .filter(({ family, local }) => local !== undefined && (family === 'inet' || family === 'inet6'))
              .map(({ family, local = '', prefixlen, scope, tentative, dadfailed, deprecated, temporary }) => ({
                family: family === 'inet' ? 4 : 6,
                address: local,
                prefix: prefixlen,
                // `ip -N` prints numbers (RT_SCOPE_UNIVERSE).
                usable: (scope === 'global' || scope === '0') && !tentative && !dadfailed && !deprecated,
                temporary,
              })),
          },
        ],
  )
}
