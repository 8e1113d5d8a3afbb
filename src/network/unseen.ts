/** Checks that iptables-save shows what iptables-restore has accepted: rules of others can hide it. */
import type { Family } from '../base/address.js'
import { BondsocksError } from '../base/errors.js'
import { diffChain, isFirewallStep } from './kernel/firewall.js'
import type { Kernel } from './kernel/kernel.js'
import type { Change } from './state.js'
import { observeTables } from './tables.js'

/** To be called after the change. Returns an error if the tables are not as the steps should have left them. */
export async function unseen(kernel: Kernel, families: readonly Family[], change: Change): Promise<BondsocksError | undefined> {
  if (!change.steps.some(isFirewallStep)) return undefined
  const { chains, strays } = await observeTables(kernel, families, true)
  const differs = change.chains.find((wanted) => {
    const shown = chains.find((one) => one.program === wanted.program && one.table === wanted.table)
    if (shown === undefined) return wanted.exists
    return diffChain(shown, wanted.exists ? wanted : undefined).length > 0
  })
  if (differs === undefined && strays.length === 0) return undefined
  const { program, table } = differs ?? { program: 'iptables', table: 'nat' }
  return new BondsocksError(
    'FIREWALL_UNSEEN',
    `${program}-save does not show in the table ${table} what ${program}-restore has just put there or taken away: ` +
      'another program changes it at this moment, or rules made with nft hide it (nft list ruleset shows them)',
  )
}
