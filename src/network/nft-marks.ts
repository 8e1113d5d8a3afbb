/** Marks that tables of nftables set in what this machine sends, read from `nft -j list ruleset`. */
import type { Family } from '../base/address.js'
import { ipOf } from './kernel/firewall.js'
import type { Kernel } from './kernel/kernel.js'
import { rulesetJson } from './kernel/nft.js'
import type { Mark } from './state.js'

export interface NftMark extends Mark {
  /** The base chain that leads to it, as `nft list chain` wants it. */
  chain: string
}

/** None if nft is not installed. */
export async function nftMarksOfOutput(kernel: Kernel, family: Family): Promise<NftMark[]> {
  // Sets may be long, and are not needed.
  const { code, stdout } = await kernel.run(['nft', '-j', '-t', 'list', 'ruleset'])
  return code === 0 ? nftMarksIn(stdout, family) : []
}

function nftMarksIn(text: string, family: Family): NftMark[] {
  const parsed = rulesetJson.safeParse(JSON.parse(text))
  const nftables = parsed.success ? parsed.data.nftables : []
  const isMeant = (one: { family: string }) => one.family === 'inet' || one.family === ipOf(family)
  const rules = nftables.flatMap(({ rule }) => {
    if (rule === undefined || !isMeant(rule) || valuesOf(rule.expr, 'match').some(isOthers)) return []
    return [{ chain: `${rule.family} ${rule.table} ${rule.chain}`, table: `${rule.family} ${rule.table}`, expr: rule.expr }]
  })
  // Only after a chain of type `route` is the route chosen anew.
  const bases = nftables.flatMap(({ chain }) =>
    chain !== undefined && isMeant(chain) && chain.type === 'route' && chain.hook === 'output'
      ? [`${chain.family} ${chain.table} ${chain.name}`]
      : [],
  )
  return bases.flatMap((base) => {
    const reached = new Set([base])
    // Those that are added meanwhile have their turn too.
    for (const chain of reached) {
      for (const { table, expr } of rules.filter((rule) => rule.chain === chain)) {
        for (const verdict of [...valuesOf(expr, 'jump'), ...valuesOf(expr, 'goto')])
          reached.add(`${table} ${field(verdict, 'target')}`)
      }
    }
    const setting = rules.filter(({ chain }) => reached.has(chain)).flatMap(({ expr }) => settersOf(expr))
    // What is restored was saved from a mark of any chain.
    const all = setting.some((value) => valuesOf(value, 'ct').length > 0) ? rules.flatMap(({ expr }) => settersOf(expr)) : setting
    return all.flatMap(marksOfValue).map((mark) => ({ ...mark, chain: base }))
  })
}

const field = (object: unknown, key: string): unknown =>
  typeof object === 'object' && object !== null ? (object as Record<string, unknown>)[key] : undefined

/** What stands under this key, however deep. */
function valuesOf(tree: unknown, key: string): unknown[] {
  if (typeof tree !== 'object' || tree === null) return []
  return Object.entries(tree).flatMap(([name, value]) => [...(name === key ? [value] : []), ...valuesOf(value, key)])
}

/** Other protocols, other users, and what stays on this machine. */
function isOthers(match: unknown): boolean {
  if (field(match, 'op') === '!=') return false
  const left = field(match, 'left')
  const right = field(match, 'right')
  const meta = field(field(left, 'meta'), 'key')
  const payload = field(left, 'payload')
  if (meta === 'skuid' || meta === 'skgid') return true
  if (meta === 'oif' || meta === 'oifname') return right === 'lo'
  const isProtocol = meta === 'l4proto' || ['protocol', 'nexthdr'].includes(String(field(payload, 'field')))
  if (isProtocol) return typeof right === 'string' && right !== 'tcp'
  return /^(udp|udplite|icmp|icmpv6|igmp|sctp|dccp|esp|ah)$/.test(String(field(payload, 'protocol')))
}

const settersOf = (expr: readonly unknown[]): unknown[] =>
  valuesOf(expr, 'mangle').flatMap((one) =>
    field(field(field(one, 'key'), 'meta'), 'key') === 'mark' ? [field(one, 'value')] : [],
  )

const allBits = 0xffffffff

/** `0x100`, `mark & 0xffff00ff | 0x100`, or any value of a map. */
function marksOfValue(value: unknown): Mark[] {
  if (typeof value === 'number') return [{ value, mask: allBits }]
  const [old, set] = [field(value, '|'), field(value, '^')].find(Array.isArray) ?? []
  if (typeof set === 'number') {
    const [, kept = allBits] = (field(old, '&') as unknown[] | undefined) ?? []
    return [{ value: set, mask: (~Number(kept) | set) >>> 0 }]
  }
  const pairs = valuesOf(field(value, 'map'), 'set').flat()
  return pairs.flatMap((pair) => (Array.isArray(pair) && typeof pair[1] === 'number' ? [{ value: pair[1], mask: allBits }] : []))
}
