/** Reads what is ours in the tables of iptables: of the flavour of `iptables`, and of the other one if that matters. */
import * as z from 'zod/mini'
import type { Family } from '../base/address.js'
import { BondsocksError } from '../base/errors.js'
import { withoutGuard } from './desired/redirection.js'
import { ipOf, parseTable, programOf } from './kernel/firewall.js'
import type { Kernel } from './kernel/kernel.js'
import { type Observed, owned, type TableName } from './state.js'
import type { KernelCommand } from './step.js'

export type Tables = Pick<Observed, 'chains' | 'chainNotes' | 'strays'>

const tableNames: readonly TableName[] = ['nat', 'filter']

/** `lenient`: a missing table cannot hold anything of ours. Otherwise no nat table for IPv4 is an error. */
export async function observeTables(kernel: Kernel, families: readonly Family[], lenient: boolean): Promise<Tables> {
  const tables: Tables = { chains: [], chainNotes: [], strays: [] }
  for (const family of families) {
    try {
      for (const table of tableNames) await observeTable(kernel, family, table, tables)
    } catch (error) {
      if (!(error instanceof BondsocksError)) throw error
      if (lenient) continue
      const hasNat = tables.chains.some((one) => one.family === family && one.table === 'nat')
      if (family === 4 && !hasNat) throw error
      tables.chainNotes.push(`${hasNat ? withoutGuard : 'IPv6 is not redirected'}: ${error.message}`)
    }
  }
  return tables
}

/** Throws, with what the user can do, if the table cannot be used. */
async function observeTable(kernel: Kernel, family: Family, table: TableName, found: Tables): Promise<void> {
  const program = programOf(family)
  const { code, stdout, stderr } = await kernel.run([`${program}-save`, '-c', '-t', table])
  if (code === 127) throw new BondsocksError('NO_IPTABLES', `${program} is missing: install the package iptables`)
  if (code !== 0) throw new BondsocksError('NO_NAT', `${program} has no ${table} table here (${lastLine(stderr)})`)
  const own = parseTable(stdout, table)
  const add = (by: string, isUsed: boolean, { isRestrictive: _, ...listed }: NonNullable<typeof own>) =>
    found.chains.push({ family, table, program: by, isUsed, ...listed })
  if (own !== undefined) add(program, true, own)
  else found.strays.push(...(await straysIn(kernel, family, table)))

  // A table that others made with nft is not listed, although rules can be added to it. Then we use the other flavour.
  const isNeeded = own === undefined
  if (!isNeeded && !stderr.includes('legacy tables present')) return
  const other = `${program}-legacy`
  // With -t it would create the table.
  const legacy = await kernel.run([`${other}-save`, '-c', ...(isNeeded ? ['-t', table] : [])])
  const listed = legacy.code === 0 ? parseTable(legacy.stdout, table) : undefined
  // Packets that one flavour accepts may still be dropped by the other.
  if (listed !== undefined) add(other, isNeeded || (table === 'filter' && listed.isRestrictive), listed)
  else if (isNeeded) {
    throw new BondsocksError(
      'NO_NAT',
      `${program} cannot list the table ${table}, because something else made it with nft (nft list table ${ipOf(family)} ${table}): ` +
        `give that table another name, or install ${other}`,
    )
  }
}

const lastLine = (text: string) => text.trim().split('\n').at(-1) ?? ''

const nftJson = z.object({
  nftables: z.array(
    z.object({
      chain: z.optional(z.object({ name: z.string() })),
      rule: z.optional(
        z.object({ chain: z.string(), handle: z.number(), expr: z.array(z.unknown()), comment: z.optional(z.string()) }),
      ),
    }),
  ),
})

/** Deletes what is ours in a table that only nft can list. */
async function straysIn(kernel: Kernel, family: Family, table: TableName): Promise<KernelCommand[]> {
  const { code, stdout } = await kernel.run(['nft', '-j', 'list', 'table', ipOf(family), table])
  if (code !== 0) return []
  const parsed = nftJson.safeParse(JSON.parse(stdout))
  const items = parsed.success ? parsed.data.nftables : []
  const where = `${ipOf(family)} ${table}`
  const isOurs = (expr: unknown) => JSON.stringify(expr).includes(`"target":"${owned.chain}"`)
  const rules = items.flatMap(({ rule }) =>
    rule !== undefined && (rule.comment === owned.chain || rule.expr.some(isOurs)) ? [rule] : [],
  )
  const hasChain = items.some(({ chain }) => chain?.name === owned.chain)
  const lines = [
    ...rules.map(({ chain, handle }) => `delete rule ${where} ${chain} handle ${handle}`),
    ...(hasChain ? [`flush chain ${where} ${owned.chain}`, `delete chain ${where} ${owned.chain}`] : []),
  ]
  return lines.length === 0 ? [] : [{ argv: ['nft', '-f', '-'], input: `${lines.join('\n')}\n` }]
}
