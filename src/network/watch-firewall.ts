/**
 * Tells at once when somebody deletes what is ours in the firewall, as a firewall does that reloads: until then nothing is redirected. Without
 * nft, and of the legacy flavour of iptables, the slow look finds it.
 */
import { streamCommand } from './kernel/command.js'
import { owned } from './state.js'
import type { WatchOptions } from './watch.js'

/** One that ends sooner cannot work here. */
const soundMs = 5000
/** What nft prints of a rule that is gone. */
const goneLine = new RegExp(`^delete rule ip6? \\S+ ${owned.chain} handle`, 'm')
/** Enough for the beginning of a line that comes in two pieces. */
const maxLine = 200

export interface FirewallEvents {
  /** Called once for every burst of lines. What we take away ourselves is told too. */
  onRulesGone(): void
}

/** Runs until the signal, or until nft shows that it cannot. Never rejects. */
export async function watchFirewall(
  { onRulesGone, stream = streamCommand }: FirewallEvents & Pick<WatchOptions, 'stream'>,
  signal: AbortSignal,
): Promise<void> {
  let startedAt = Number.NEGATIVE_INFINITY
  while (!signal.aborted && performance.now() - startedAt > soundMs) {
    startedAt = performance.now()
    let rest = ''
    const onOutput = (text: string) => {
      const lines = rest + text
      rest = lines.slice(lines.lastIndexOf('\n') + 1).slice(0, maxLine)
      if (goneLine.test(lines)) onRulesGone()
    }
    await stream(['nft', 'monitor', 'destroy', 'rules'], onOutput, signal)
  }
}
