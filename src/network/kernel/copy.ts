/**
 * A HAG's answers begin with more than the ten segments of RFC 6928, because slow start takes a round trip of every WAN for each doubling. The
 * kernel takes the window from the route, so there is a table with the routes of the main one and the window as their metric, and a rule that
 * leads to it. Nobody's packets may go another way by it: the rule is there only while the table was read back as a true copy. All of it is
 * kept as text, so that a word that we do not know is copied too.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Family } from '../../base/address.js'
import { type CopiedRoute, type DesiredCopy, owned, type RouteCopy } from '../state.js'
import { type Step, step } from '../step.js'

/**
 * One before that of the kernel's rule for the main table, behind all others (two uplinks, VPN, VRF), which decide before it. It is for packets
 * that this machine itself sends (`iif lo`), not for those it forwards. Other ways were worse: a mark on the socket needs a rule and a table as
 * well, and others' rules and filters see it; TCP_BPF_IW is for a BPF program on a cgroup only.
 */
const priority = 32_765
/** RT_TABLE_MAIN, which `ip -N` shows as a number. */
const isMain = (rule: string | undefined) => rule !== undefined && /^\d+: from all lookup 254$/.test(rule)
/** In former releases at another priority, and for forwarded packets too. */
const isOurs = (rule: string) =>
  new RegExp(`^\\d+: from all (iif lo )?ipproto tcp sport \\d+ lookup ${owned.hagTable}$`).test(rule)

export const windowRule = (port: number) => `pref ${priority} from all iif lo ipproto tcp sport ${port} lookup ${owned.hagTable}`
export const isForPort = (rule: string, port: number) => rule.includes(` sport ${port} `)

/** Where the rule for the main table should be asked next: what is there instead. */
export function inPlaceOfMain({ otherRules }: RouteCopy): string | undefined {
  const next = otherRules.find((rule) => Number.parseInt(rule, 10) > priority)
  return isMain(next) ? undefined : (next ?? 'none')
}

/** What `ip -N -o -batch -` prints for this. By one process, or the rules may be older than the routes. */
export const copyCommands = 'rule show\nroute show table all\n'

export function parseCopy(text: string, family: Family): RouteCopy {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  const isRule = (line: string) => /^\d+:\s/.test(line)
  // `ip -N` prints a number of TCP's in words of its own, which it does not take.
  const oneSpelling = (line: string) =>
    line
      .trim()
      .replace(/\s+/g, ' ')
      .replace(/ ipproto (ipproto-)?6 /, ' ipproto tcp ')
  const rules = lines.filter(isRule).map(oneSpelling)
  const routes = lines.filter((line) => !isRule(line)).map(parseRoute)
  return {
    family,
    rules: rules.flatMap((rule, at) => {
      if (!isOurs(rule)) return []
      // Nothing that decides stands between it and the main table's.
      const isInPlace = rule.startsWith(`${priority}:`) && isMain(rules.slice(at).find((one) => !isOurs(one)))
      return [{ spelling: `pref ${rule.replace(':', '')}`, isInPlace }]
    }),
    otherRules: rules.filter((rule) => !isOurs(rule)),
    main: routes.flatMap(({ table, ...route }) => (table === undefined ? [route] : [])),
    routes: routes.flatMap(({ table, ...route }) => (table === String(owned.hagTable) ? [route] : [])),
  }
}

/** RTN_LOCAL and so on: `ip -N` shows their numbers, and does not take them. */
const types = ['', '', 'local', 'broadcast', 'anycast', 'multicast', 'blackhole', 'unreachable', 'prohibit', 'throw']
const windowWords = / initcwnd (\d+)/

/** A line of `ip -N -o route show table all`, without what says nothing of where it leads. */
function parseRoute(line: string): CopiedRoute & { table: string | undefined } {
  const words = line
    .replaceAll('\\', ' ')
    .replace(/^\d /, (type) => `${types[Number(type)] ?? ''} `)
    // States, which the kernel adds by itself; how long it lives, which the monitor tells; who made it; and the nexthop object, whose next
    // hop is there as well (a route by an object cannot be flushed: RTM_DELROUTE takes one of the two). A group of them stays, and then
    // there is no copy: from Linux 6.16 on next hops in a route are chosen by the source address too, those of a group are not.
    .replace(/ (linkdown|dead|offload|trap|rt_offload|rt_trap|offload_failed)\b/g, '')
    .replace(/ (expires|error|proto|table) \S+/g, '')
    .replace(/ nhid \d+(?!.*\bnexthop )/, '')
    .replace(windowWords, '')
    .replace(/\s+/g, ' ')
    .trim()
  return {
    words,
    window: windowWords.exec(line)?.[1],
    isOurs: new RegExp(` proto ${owned.protocol}\\b`).test(line),
    table: / table (\d+)/.exec(line)?.[1],
  }
}

/** A route as words for `ip route append`: next hops last; `rto_min`, which `ip` shows as locked, without that word. */
function spelling({ words, window }: CopiedRoute): string {
  const [, head = '', hops = ''] = /^(.*?)( nexthop .*)?$/.exec(words) ?? []
  return `${head.replace(' rto_min lock ', ' rto_min ')} initcwnd ${window} table ${owned.hagTable} proto ${owned.protocol}${hops}`
}

export const isSameCopy = (one: readonly CopiedRoute[], other: readonly CopiedRoute[]) => isDeepStrictEqual(one, other)

/**
 * A copy that is not true any more leads astray, so its rules go first, and half a table is none: it is made anew. What undoes this takes the
 * rest of it away, because then the main table counts.
 */
export function diffCopy(have: RouteCopy, want: DesiredCopy | undefined): Step[] {
  const ip = (words: string) => ({ argv: ['ip', `-${have.family}`, ...words.split(' ')] })
  const routes = want?.routes ?? []
  const isSame = isSameCopy(have.routes, routes)
  const stays = ({ spelling, isInPlace }: RouteCopy['rules'][number]) =>
    isSame && isInPlace && want?.rules.includes(spelling) === true
  const staying = have.rules.filter(stays).map((rule) => rule.spelling)
  const flush = ip(`route flush table ${owned.hagTable} proto ${owned.protocol}`)
  return [
    ...have.rules.filter((rule) => !stays(rule)).map((rule) => step('rule-deleted', ip(`rule del ${rule.spelling}`))),
    ...(!isSame && have.routes.some((route) => route.isOurs) ? [step('route-deleted', flush)] : []),
    ...(isSame ? [] : routes).map((route, at) =>
      step('route-added', ip(`route append ${spelling(route)}`), ...(at === 0 ? [flush] : [])),
    ),
    ...(want?.rules ?? [])
      .filter((rule) => !staying.includes(rule))
      .map((rule) => step('rule-added', ip(`rule add ${rule}`), ip(`rule del ${rule}`))),
  ]
}
