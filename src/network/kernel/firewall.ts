/**
 * Our part of the firewall: a chain in the nat and in the filter table of iptables and ip6tables, and the rules that lead to it. The same
 * for the nft and the legacy flavour.
 */
import type { Family } from '../../base/address.js'
import { type Chain, type KernelChain, owned, type TableName } from '../state.js'
import { type Step, step } from '../step.js'

const { chain } = owned

/** Whether a rule of a built-in chain is ours: a jump, or one that only counts. */
const isJump = (line: string) =>
  !line.startsWith(`-A ${chain} `) && new RegExp(`^-A .* (-[jg]|--comment) "?${chain}"?$`).test(line)

interface Listed extends Pick<KernelChain, 'exists' | 'rules' | 'jumps' | 'places' | 'isInFront' | 'redirected' | 'arrived'> {
  /** Its INPUT chain does not accept everything. */
  isRestrictive: boolean
}

/** Reads a table from the output of `iptables-save -c`; undefined if it is not shown. */
export function parseTable(text: string, table: TableName): Listed | undefined {
  const lines = text.split('\n').map((line) => line.trim())
  const start = lines.indexOf(`*${table}`)
  if (start < 0) return undefined
  const counted = lines.slice(start, lines.indexOf('COMMIT', start)).map((line) => {
    const [, packets = '0', rule = line] = /^\[(\d+):\d+\] (.*)$/.exec(line) ?? []
    return { packets: Number(packets), rule }
  })
  const rules = counted.map(({ rule }) => rule)
  const jumps = rules.filter(isJump)
  const countsOf = (isMeant: (rule: string) => boolean) =>
    new Map(counted.filter(({ rule }) => isMeant(rule)).map(({ rule, packets }) => [/ -i (\S+)/.exec(rule)?.[1] ?? '', packets]))
  const headOf = (rule: string) => `${rule.split(' ', 2).join(' ')} `
  const peersOf = (jump: string) => rules.filter((other) => other.startsWith(headOf(jump)))
  const places = new Map<string, number[]>()
  const placeOf = (jump: string) => {
    const at = peersOf(jump).indexOf(jump, places.get(jump)?.at(-1) ?? 0) + 1
    places.set(jump, [...(places.get(jump) ?? []), at])
    return at
  }
  return {
    exists: rules.some((line) => line.startsWith(`:${chain} `)),
    rules: rules.filter((line) => line.startsWith(`-A ${chain} `)),
    jumps,
    places: jumps.map(placeOf),
    isInFront: jumps.every((jump) => peersOf(jump).slice(0, peersOf(jump).lastIndexOf(jump)).every(isJump)),
    redirected: countsOf((rule) => rule.startsWith(`-A ${chain} -i `) && rule.includes(' -j REDIRECT ')),
    arrived: countsOf((rule) => isJump(rule) && rule.startsWith('-A INPUT ')),
    isRestrictive: rules.some((rule) => /^(:INPUT (?!ACCEPT )|-A INPUT )/.test(rule) && !isJump(rule)),
  }
}

/** The lines that `list` has more often than `other`. */
function surplus(list: readonly string[], other: readonly string[]): string[] {
  const rest = [...other]
  return list.filter((line) => {
    const at = rest.indexOf(line)
    if (at >= 0) rest.splice(at, 1)
    return at < 0
  })
}

const isSame = (one: readonly string[], other: readonly string[]) => one.join('\n') === other.join('\n')

type Lines = Pick<Chain, 'rules' | 'jumps'> & { exists: boolean }
const none: Lines = { exists: false, rules: [], jumps: [] }

/** One transaction of iptables-restore: the kernel takes all of it or nothing, and with --noflush only the chains it declares change. */
function transaction({ table, program }: KernelChain, to: Lines, moves: readonly string[]) {
  const lines = [
    ...(to.exists ? [`:${chain} - [0:0]`, ...to.rules] : []),
    ...moves,
    ...(to.exists ? [] : [`-F ${chain}`, `-X ${chain}`]),
  ]
  return {
    argv: [`${program}-restore`, '--noflush', '-w', '5'],
    input: [`*${table}`, ...lines, 'COMMIT', ''].join('\n'),
  }
}

const taken = (lines: readonly string[]) => lines.map((line) => line.replace('-A', '-D'))
/** Inserts at the place; 1 is the first. */
const put = (line: string, place: number | undefined) => line.replace(/^-A (\S+)/, `-I $1 ${place ?? 1}`)

/** At most one step. */
export function diffChain(have: KernelChain, wanted: Chain | undefined): Step[] {
  const want = wanted === undefined ? none : { ...wanted, exists: true }
  // Our jumps in the filter table must come first: after others' rules they may never be reached.
  const isFilter = have.table === 'filter'
  const moves = isFilter && want.exists && !have.isInFront
  const stale = moves ? have.jumps : surplus(have.jumps, want.jumps)
  const missing = moves ? want.jumps : surplus(want.jumps, have.jumps)
  if (have.exists === want.exists && isSame(have.rules, want.rules) && stale.length + missing.length === 0) return []
  const forth = isFilter ? [...taken(stale), ...missing.map((line) => put(line, 1))] : [...missing, ...taken(stale)]
  const back = isFilter
    ? [...taken(want.jumps), ...have.jumps.map((line, at) => put(line, have.places[at]))]
    : [...stale, ...taken(missing)]
  return [step('firewall', transaction(have, want, forth), transaction(have, have, back))]
}

export const isFirewallStep = ({ action }: Step) => 'argv' in action && /tables.*-restore$/.test(action.argv[0] ?? '')

/** As nft calls it. */
export const ipOf = (family: Family) => (family === 4 ? 'ip' : 'ip6')

export const programOf = (family: Family) => (family === 4 ? 'iptables' : 'ip6tables')
