/**
 * Tells when somebody changes rules of the firewall, and what is ours is deleted, as a firewall does that reloads: until then nothing is redirected.
 * Without nft, and of the legacy flavour of iptables, the slow look finds it.
 */
import { streamCommand } from './kernel/command.js'
import { owned } from './state.js'
import type { WatchOptions } from './watch.js'

/** One that ends sooner cannot work here. */
const soundMs = 5000
/** What nft prints of a rule that is gone. */
const goneLine = new RegExp(`^delete rule ip6? \\S+ ${owned.chain} handle`, 'm')
/** What it prints of rules of others, that may stand in front of ours by now. */
const otherLine = new RegExp(`^(?!.*${owned.chain})(?:add|insert|replace|delete) rule `, 'm')
/** Enough for the beginning of a line that comes in two pieces. */
const maxLine = 200

/** Called once for every burst of lines. What we take away ourselves is told too. */
export interface FirewallEvents {
  onRulesGone(): void
  /** Somebody else's, as far as one can tell. */
  onRulesChanged(): void
}

/** Runs until the signal, or until nft shows that it cannot. Never rejects. */
export async function watchFirewall(
  { onRulesGone, onRulesChanged, stream = streamCommand }: FirewallEvents & Pick<WatchOptions, 'stream'>,
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
      else if (otherLine.test(lines)) onRulesChanged()
    }
    await stream(['nft', 'monitor', 'rules'], onOutput, signal)
  }
}
