/** The rules of this machine's firewall that may drop what our own let in, of whatever table, flavour or program. */
import type { Family } from '../base/address.js'
import { ipOf, programOf } from './kernel/firewall.js'
import type { Kernel } from './kernel/kernel.js'
import { rulesetJson } from './kernel/nft.js'
import type { KernelChain } from './state.js'

export interface InputRules {
  /** Family, table and chain, as nft wants them. */
  suspects: string[]
  /** All these rules, without counters. It differs if one of them does. */
  text: string
}

export async function inputRules(kernel: Kernel, family: Family, chains: readonly KernelChain[]): Promise<InputRules> {
  /** Whose filter tables have our rule in front of all others. */
  const fronted = new Set(chains.flatMap((one) => (one.table === 'filter' && one.isUsed ? [one.program] : [])))
  const program = programOf(family)
  const saved = [program, `${program}-legacy`].map(async (flavour) => {
    const { stdout } = await kernel.run([`${flavour}-save`])
    const tables = stdout.replace(/^#.*\n|\[\d+:\d+\] ?/gm, '').split('COMMIT\n')
    return tables.filter((table) => !table.startsWith('*nat\n') && !(table.startsWith('*filter\n') && fronted.has(flavour)))
  })
  const { suspects, rules } = await nftRules(kernel, family, fronted.has(program))
  return { suspects, text: [rules, ...(await Promise.all(saved)).flat()].join('') }
}

/** Chains of INPUT that can drop packets, without the one in which our rule is first, and all of their tables. */
async function nftRules(kernel: Kernel, family: Family, isFronted: boolean) {
  const { code, stdout } = await kernel.run(['nft', '-j', 'list', 'ruleset'])
  const parsed = code === 0 ? rulesetJson.safeParse(JSON.parse(stdout)) : undefined
  const items = parsed?.data?.nftables ?? []
  const drops = (expr: unknown) => typeof expr === 'object' && expr !== null && ('drop' in expr || 'reject' in expr)
  const own = ipOf(family)
  const found = items.flatMap(({ chain }) => {
    if (chain?.hook !== 'input' || ![own, 'inet'].includes(chain.family)) return []
    if (isFronted && chain.family === own && chain.table === 'filter' && chain.name === 'INPUT') return []
    const table = items.filter(({ chain: one, rule = one }) => rule?.family === chain.family && rule.table === chain.table)
    const mayDrop = chain.policy === 'drop' || table.some(({ rule }) => rule?.expr.some(drops))
    return mayDrop ? [{ suspect: `${chain.family} ${chain.table} ${chain.name}`, table }] : []
  })
  return {
    suspects: found.map(({ suspect }) => suspect),
    rules: JSON.stringify(found, (key, value) => (counting.has(key) ? undefined : value)),
  }
}

/** Expressions of nft that differ with each packet. */
const counting = new Set(['counter', 'quota', 'last'])
