/** Source rules: `ip rule`. */
import type { Family } from '../../shared/address.js'
import { type Entry, ip, owned, type Step, step } from '../state.js'

export function sourceRule(family: Family, address: string, index: number): Entry {
  const number = owned.base + index
  return { family, spelling: `from ${address} lookup ${number} pref ${number}` }
}

interface RuleJson {
  priority: number
  src: string
  srclen?: number
  table?: string
}

/** Our rules out of `ip -N -j rule show`. */
export function parseRules(json: string | undefined, family: Family): Entry[] {
  const rules = JSON.parse(json || '[]') as RuleJson[]
  return rules
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
