/** Policy rules: `ip rule`. */
import * as z from 'zod/mini'
import type { Family } from '../../base/address.js'
import { type Entry, type ForeignRule, owned } from '../state.js'
import { ip, type Step, step } from '../step.js'
import { readJson } from './json.js'

const mark = `protocol ${owned.protocol}`
/** Directly before the kernel's rule for the main table (32766), after all others. */
const lastPriority = 32_765
/** RT_TABLE_MAIN, which `ip -N` shows as a number. */
const main = '254'

export function sourceRule(family: Family, address: string, index: number, firstPriority: number = owned.rulePriority): Entry {
  return { family, spelling: `from ${address} lookup ${owned.base + index} pref ${firstPriority + index} ${mark}` }
}

/** Puts our default route before the main table's, but after the main table's other routes. */
export function mainRules(family: Family): Entry[] {
  return [
    { family, spelling: `from all lookup ${main} suppress_prefixlength 0 pref ${lastPriority - 1} ${mark}` },
    { family, spelling: `from all lookup ${owned.mainTable} pref ${lastPriority} ${mark}` },
  ]
}

const text = z.optional(z.union([z.string(), z.number()]))
const rule = z.object({
  priority: z._default(z.number(), -1),
  not: z.optional(z.unknown()),
  dst: text,
  dstlen: text,
  fwmark: text,
  fwmask: text,
  iif: text,
  oif: text,
  ipproto: text,
  sport: text,
  dport: text,
  action: text,
  src: z._default(z.string(), 'all'),
  srclen: z.optional(z.number()),
  table: z.optional(z.string()),
  suppress_prefixlen: z.optional(z.number()),
  protocol: z.optional(z.string()),
})

/** Ours has our protocol and one of our tables; those of a HAG do not count. */
function isOurs({ protocol, table, suppress_prefixlen }: z.infer<typeof rule>): boolean {
  if (protocol !== String(owned.protocol)) return false
  const number = Number(table)
  const isWan = number >= owned.base && number < owned.base + owned.count
  return isWan || number === owned.mainTable || (table === main && suppress_prefixlen === 0)
}

/** Our rules in the output of `ip -N -j rule show`. */
export function parseRules(json: string | undefined, family: Family): Entry[] {
  return readJson(rule, json, 'rule')
    .filter(isOurs)
    .map(({ priority, src, srclen, table, suppress_prefixlen }) => {
      const source = `${src}${srclen === undefined ? '' : `/${srclen}`}`
      const suppress = suppress_prefixlen === undefined ? '' : ` suppress_prefixlength ${suppress_prefixlen}`
      return { family, spelling: `from ${source} lookup ${table}${suppress} pref ${priority} ${mark}` }
    })
}

/** FR_ACT_BLACKHOLE, FR_ACT_UNREACHABLE, FR_ACT_PROHIBIT: `ip -N` prints numbers. */
const refusals: Record<string, string> = { 6: 'blackhole', 7: 'unreachable', 8: 'prohibit' }

/** The rules of others, without the three that the kernel begins with. */
export function parseForeignRules(json: string | undefined, family: Family): ForeignRule[] {
  return readJson(rule, json, 'rule')
    .filter((one) => !isOurs(one) && ![0, 32_766, 32_767].includes(one.priority))
    .map((one) => {
      const { priority, src, srclen, dst, dstlen, fwmark, fwmask, iif, oif, ipproto, sport, dport, table, action } = one
      const words = [
        ...('not' in one ? ['not'] : []),
        `from ${src}${srclen === undefined ? '' : `/${srclen}`}`,
        ...(dst === undefined ? [] : [`to ${dst}${dstlen === undefined ? '' : `/${dstlen}`}`]),
        ...(fwmark === undefined ? [] : [`fwmark ${fwmark}${fwmask === undefined ? '' : `/${fwmask}`}`]),
        ...Object.entries({ iif, oif, ipproto, sport, dport }).flatMap(([key, value]) =>
          value === undefined ? [] : [`${key} ${value}`],
        ),
        ...(action === undefined ? [] : [refusals[action] ?? `action ${action}`]),
        ...(table === undefined ? [] : [`lookup ${table}`]),
        ...(one.suppress_prefixlen === undefined ? [] : [`suppress_prefixlength ${one.suppress_prefixlen}`]),
      ]
      const isForUs = !('not' in one) && (iif === undefined || iif === 'lo')
      return {
        family,
        priority,
        mark: fwmark !== undefined && isForUs ? { value: Number(fwmark), mask: Number(fwmask ?? 0xffffffff) } : undefined,
        text: `${priority}: ${words.join(' ')}`,
        table,
        isRefusal: action !== undefined && action in refusals,
      }
    })
}

export function diffRules(have: readonly Entry[], want: readonly Entry[]): { add: Step[]; remove: Step[] } {
  const isIn = (list: readonly Entry[], { family, spelling }: Entry) =>
    list.some((one) => one.family === family && one.spelling === spelling)
  const add = ({ family, spelling }: Entry) => ip(family, 'rule', 'add', spelling)
  const remove = ({ family, spelling }: Entry) => ip(family, 'rule', 'del', spelling)
  return {
    add: want.filter((rule) => !isIn(have, rule)).map((rule) => step('rule-added', add(rule), remove(rule))),
    remove: have.filter((rule) => !isIn(want, rule)).map((rule) => step('rule-deleted', remove(rule), add(rule))),
  }
}
