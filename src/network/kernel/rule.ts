/** Source rules: `ip rule`. */
import * as z from 'zod'
import type { Family } from '../../shared/address.js'
import { type Entry, ip, owned, type Step, step } from '../state.js'
import { readJson } from './json.js'

export function sourceRule(family: Family, address: string, index: number): Entry {
  const number = owned.base + index
  return { family, spelling: `from ${address} lookup ${number} pref ${number}` }
}

const rule = z.object({
  priority: z.number().default(-1),
  src: z.string().default('all'),
  srclen: z.number().optional(),
  table: z.string().optional(),
})

/** Our rules out of `ip -N -j rule show`. */
export function parseRules(json: string | undefined, family: Family): Entry[] {
  return readJson(rule, json, 'rule')
    .filter(({ priority }) => priority >= owned.base && priority < owned.base + owned.count)
    .map(({ priority, src, srclen, table }) => ({
      family,
      spelling: `from ${src}${srclen === undefined ? '' : `/${srclen}`}${table === undefined ? '' : ` lookup ${table}`} pref ${priority}`,
    }))
}

export function diffRules(have: readonly Entry[], want: readonly Entry[]): { add: Step[]; remove: Step[] } {
  const isIn = (list: readonly Entry[], { family, spelling }: Entry) =>
    list.some((one) => one.family === family && one.spelling === spelling)
  const add = ({ family, spelling }: Entry) => ip(family, 'rule', 'add', spelling)
  const remove = ({ family, spelling }: Entry) => ip(family, 'rule', 'del', spelling)
  return {
    add: want.filter((rule) => !isIn(have, rule)).map((rule) => step(add(rule), remove(rule))),
    remove: have.filter((rule) => !isIn(want, rule)).map((rule) => step(remove(rule), add(rule))),
  }
}
