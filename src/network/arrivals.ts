/**
 * Do redirected connections arrive? What comes in from the LAN is counted where it is redirected, and again behind all filters of INPUT, of
 * whatever table, flavour or program. Where only the first counter moves, a firewall of this machine drops them, and redirecting them would take
 * the LAN's Internet away.
 */
import * as z from 'zod'
import type { Family } from '../shared/address.js'
import type { Kernel } from './kernel.js'
import type { KernelChain } from './state.js'

/** One SYN may be between the counters; a client repeats its own after one second. */
const minRedirected = 2
/** How long connections go around us before it is tried again. */
const retryMs = 10 * 60_000

type Counts = Pick<KernelChain, 'redirected' | 'arrived'>

export class Arrivals {
  readonly #kernel: Kernel
  readonly #now: () => number
  readonly #counts = new Map<Family, Counts>()
  readonly #blocked = new Map<Family, { note: string; until: number }>()

  /** Tests move the clock (ms). */
  constructor(kernel: Kernel, now = () => performance.now()) {
    this.#kernel = kernel
    this.#now = now
  }

  /** Families whose redirected connections are dropped, and what is to be said of it. */
  blocked(): Map<Family, string> {
    return new Map([...this.#blocked].map(([family, { note }]) => [family, note]))
  }

  /** After each look at the tables. */
  async look(chains: readonly KernelChain[], port: number): Promise<void> {
    for (const [family, { until }] of this.#blocked) if (this.#now() >= until) this.#blocked.delete(family)
    // Where others' rules came in front of ours, that is mended first.
    const isOvertaken = (family: Family) =>
      chains.some((one) => one.family === family && one.isUsed && one.table === 'filter' && !one.isInFront)
    for (const { family, table, isUsed, exists, redirected, arrived } of chains) {
      if (table !== 'nat' || !isUsed) continue
      const before = this.#counts.get(family)
      // A chain made anew counts anew.
      const isNew = before === undefined || redirected < before.redirected || arrived < before.arrived
      const [came, passed] = isNew ? [redirected, arrived] : [redirected - before.redirected, arrived - before.arrived]
      this.#counts.set(family, { redirected, arrived })
      if (!exists || passed > 0 || came < minRedirected || isOvertaken(family)) continue
      const note = noteOn(family, came, await suspects(this.#kernel, family), port)
      this.#blocked.set(family, { note, until: this.#now() + retryMs })
    }
  }
}

function noteOn(family: Family, count: number, found: readonly Suspect[], port: number): string {
  const commands = found.map(({ where }) => `nft insert rule ${where} tcp dport ${port} ct status dnat accept`)
  const mend =
    commands.length > 0
      ? `let them in: ${commands.join('; ')}`
      : `let what is redirected in to TCP port ${port} (iptables -S, iptables -t mangle -S and nft list ruleset show what does not)`
  return (
    `a firewall of this machine drops the LAN's redirected IPv${family} connections (${count} of ${count} did not arrive), ` +
    `so they go straight to their servers for ${retryMs / 60_000} minutes, without bonding; ${mend}`
  )
}

interface Suspect {
  /** Family, table and chain, as nft wants them. */
  where: string
}

const nftJson = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
      rule: z.object({ family: z.string(), table: z.string(), expr: z.array(z.unknown()) }).optional(),
    }),
  ),
})

/** Chains of INPUT that can drop something; those of iptables have our rule in front. */
async function suspects(kernel: Kernel, family: Family): Promise<Suspect[]> {
  const { code, stdout } = await kernel.run(['nft', '-j', 'list', 'ruleset'])
  if (code !== 0) return []
  const parsed = nftJson.safeParse(JSON.parse(stdout))
  const items = parsed.success ? parsed.data.nftables : []
  const drops = (expr: unknown) => typeof expr === 'object' && expr !== null && ('drop' in expr || 'reject' in expr)
  const own = family === 4 ? 'ip' : 'ip6'
  return items.flatMap(({ chain }) => {
    if (chain?.hook !== 'input' || ![own, 'inet'].includes(chain.family)) return []
    if (chain.family === own && chain.table === 'filter' && chain.name === 'INPUT') return []
    const isOfTable = ({ rule }: (typeof items)[number]) => rule?.family === chain.family && rule.table === chain.table
    const mayDrop = chain.policy === 'drop' || items.some((one) => isOfTable(one) && one.rule?.expr.some(drops))
    return mayDrop ? [{ where: `${chain.family} ${chain.table} ${chain.name}` }] : []
  })
}
