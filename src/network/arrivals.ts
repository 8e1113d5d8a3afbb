/**
 * Checks whether redirected connections arrive. They are counted when they are redirected, and again behind all filters of INPUT, whatever
 * table, flavour or program has them. If only the first counter moves, a firewall of this machine drops them, and redirection would cut the
 * LAN off the Internet.
 */
import type { Family } from '../base/address.js'
import type { GatewayConfig } from '../config/schema.js'
import { inputRules } from './input-rules.js'
import type { Kernel } from './kernel/kernel.js'
import type { KernelChain } from './state.js'

/** One SYN may be between the counters; a client sends it again after one second. */
const minRedirected = 2
/** Looks in a row that must fail if some connections arrived before: a single device may send packets that the kernel drops. */
const minLooks = 2
/** How long connections are not redirected before the next try, unless the firewall's rules change. */
const retryMs = 10 * 60_000
/** A try in vain holds the LAN's connections up for some seconds. So that is how often changed rules lead to one. */
const minRetryMs = 60_000

export interface Blocked {
  family: Family
  device: string
  note: string
}

interface Line {
  redirected: number
  arrived: number
  hasArrived: boolean
  /** Looks in a row in which connections were redirected and none arrived. */
  inVain: number
}

export class Arrivals {
  readonly #kernel: Kernel
  readonly #now: () => number
  readonly #lines = new Map<string, Line>()
  readonly #blocked = new Map<string, Blocked & { until: number; rules: string }>()
  #retriedAt = Number.NEGATIVE_INFINITY

  /** Tests move the clock (ms). */
  constructor(kernel: Kernel, now = () => performance.now()) {
    this.#kernel = kernel
    this.#now = now
  }

  get blocked(): Blocked[] {
    return [...this.#blocked.values()]
  }

  /** After each look at the tables. */
  async look(chains: readonly KernelChain[], config: Pick<GatewayConfig, 'listen' | 'on_hag_down'>): Promise<void> {
    await this.#unblock(chains)
    for (const nat of chains) {
      const filter = chains.find((one) => one.family === nat.family && one.isUsed && one.table === 'filter')
      // If others' rules came before ours, that is mended first.
      if (nat.table !== 'nat' || !nat.isUsed || filter?.isInFront === false) continue
      for (const [device, redirected] of nat.redirected) {
        const arrived = nat.arrived.get(device)
        // If there is no counter, we refuse the connections ourselves.
        const count = arrived === undefined ? undefined : this.#count(`${nat.family} ${device}`, redirected, arrived)
        if (count === undefined) continue
        const { suspects, text: rules } = await inputRules(this.#kernel, nat.family, chains)
        const note = noteOn(nat.family, device, count, suspects, config)
        this.#blocked.set(`${nat.family} ${device}`, { family: nat.family, device, note, until: this.#now() + retryMs, rules })
      }
    }
  }

  /** Those for which it is time to try again, or for which somebody may have mended the firewall. */
  async #unblock(chains: readonly KernelChain[]): Promise<void> {
    const now = this.#now()
    const mayRetry = now - this.#retriedAt >= minRetryMs
    for (const [key, { family, until, rules }] of this.#blocked) {
      const isChanged = async () => rules !== (await inputRules(this.#kernel, family, chains)).text
      const isDue = now >= until || (mayRetry && (await isChanged()))
      if (!isDue) continue
      this.#blocked.delete(key)
      this.#retriedAt = now
    }
  }

  /** How many were redirected in vain; undefined if that proves nothing. */
  #count(key: string, redirected: number, arrived: number): number | undefined {
    const before = this.#lines.get(key)
    // If a rule was made again, its counter began again.
    const isNew = before === undefined || redirected < before.redirected || arrived < before.arrived
    const [came, passed] = isNew ? [redirected, arrived] : [redirected - before.redirected, arrived - before.arrived]
    const isInVain = passed === 0 && came >= minRedirected
    const hasArrived = passed > 0 || (before?.hasArrived ?? false)
    // If no connection came, a look says nothing.
    const inVain = passed > 0 ? 0 : (before?.inVain ?? 0) + (isInVain ? 1 : 0)
    this.#lines.set(key, { redirected, arrived, hasArrived, inVain })
    if (!isInVain || (hasArrived && inVain < minLooks)) return undefined
    this.#lines.delete(key)
    return came
  }
}

function noteOn(
  family: Family,
  device: string,
  count: number,
  suspects: readonly string[],
  { listen: { port }, on_hag_down: onHagDown }: Pick<GatewayConfig, 'listen' | 'on_hag_down'>,
): string {
  const commands = suspects.map((where) => `nft insert rule ${where} tcp dport ${port} ct status dnat accept`)
  const mend =
    commands.length > 0
      ? `let them in: ${commands.join('; ')}`
      : `let what is redirected in to TCP port ${port} (iptables -S, iptables -t mangle -S and nft list ruleset show what does not)`
  return (
    `a firewall of this machine drops the LAN's redirected IPv${family} connections from ${device} (of the last ${count} none arrived), ` +
    `so they ${onHagDown === 'direct' ? 'go straight to their servers, without bonding,' : 'are not served (on_hag_down: reject)'} ` +
    `for ${retryMs / 60_000} minutes, or until its rules change; ${mend}`
  )
}
