/** The redirect: a chain of ours in the nat table of iptables and ip6tables, and the jumps to it. */
import { type Cidr, type Family, formatCidr } from '../../shared/address.js'
import { type Chain, owned, type Step, step } from '../state.js'

const { chain } = owned

/** What `iptables-save -t nat` says of us; the same for the nft and the legacy flavour. */
export function parseNat(text: string): Chain {
  const lines = text.split('\n').map((line) => line.trim())
  return {
    exists: lines.some((line) => line.startsWith(`:${chain} `)),
    rules: lines.filter((line) => line.startsWith(`-A ${chain} `)),
    jumps: lines.filter((line) => !line.startsWith(`-A ${chain} `) && new RegExp(`^-A .* -[jg] ${chain}$`).test(line)),
  }
}

/**
 * Redirects the TCP of the LAN interfaces to `port`, but not what is meant for the gateway itself (LOCAL is looked up in the local table,
 * so it follows address changes) nor what lies in `kept`.
 */
export function redirectChain(family: Family, interfaces: readonly string[], kept: readonly Cidr[], port: number): Chain {
  const types = family === 4 ? ['LOCAL', 'BROADCAST', 'MULTICAST'] : ['LOCAL', 'MULTICAST']
  const networks = new Set(kept.filter(({ address }) => (address.kind() === 'ipv4') === (family === 4)).map(formatCidr))
  return {
    exists: true,
    rules: [
      ...types.map((type) => `-A ${chain} -m addrtype --dst-type ${type} -j RETURN`),
      // iptables-save leaves out a destination that matches everything.
      ...[...networks].map((network) => `-A ${chain}${network.endsWith('/0') ? '' : ` -d ${network}`} -j RETURN`),
      `-A ${chain} -p tcp -j REDIRECT --to-ports ${port}`,
    ],
    jumps: [...new Set(interfaces)].map((name) => `-A PREROUTING -i ${name} -p tcp -j ${chain}`),
  }
}

export const noChain: Chain = { exists: false, rules: [], jumps: [] }

/** What is in `list` once more often than in `other`. */
function surplus(list: readonly string[], other: readonly string[]): string[] {
  const rest = [...other]
  return list.filter((line) => {
    const at = rest.indexOf(line)
    if (at >= 0) rest.splice(at, 1)
    return at < 0
  })
}

const isSame = (one: readonly string[], other: readonly string[]) => one.join('\n') === other.join('\n')

/** One transaction of iptables-restore: the kernel takes all of it or nothing, and with --noflush only the chains it declares change. */
function transaction(family: Family, from: Chain, to: Chain) {
  const lines = [
    ...(to.exists ? [`:${chain} - [0:0]`, ...to.rules] : []),
    ...surplus(to.jumps, from.jumps),
    ...surplus(from.jumps, to.jumps).map((line) => line.replace('-A', '-D')),
    ...(to.exists ? [] : [`-F ${chain}`, `-X ${chain}`]),
  ]
  return {
    argv: [family === 4 ? 'iptables-restore' : 'ip6tables-restore', '--noflush', '-w', '5'],
    input: ['*nat', ...lines, 'COMMIT', ''].join('\n'),
  }
}

/** At most one step. */
export function diffChain(family: Family, have: Chain | undefined, want: Chain = noChain): Step[] {
  if (have === undefined) return []
  const jumpsDiffer = surplus(have.jumps, want.jumps).length + surplus(want.jumps, have.jumps).length > 0
  if (have.exists === want.exists && isSame(have.rules, want.rules) && !jumpsDiffer) return []
  return [step(transaction(family, have, want), transaction(family, want, have))]
}
