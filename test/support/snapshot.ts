/** Everything that bondsocks may set up in a network namespace, as text: after `remove` it must be as before. */
import type { Execute } from './hybrid.js'

const commands: string[][] = [
  ['ip', 'rule', 'show'],
  ['ip', '-6', 'rule', 'show'],
  ['ip', '-N', 'route', 'show', 'table', 'all'],
  ['ip', '-6', '-N', 'route', 'show', 'table', 'all'],
  ['ip', 'mptcp', 'endpoint', 'show'],
  ['ip', 'mptcp', 'limits', 'show'],
  ['ip', '-brief', 'address', 'show'],
  ['iptables-save'],
  ['ip6tables-save'],
  ['sysctl', '-a', '-r', '^net\\.'],
]

// Counters that the kernel changes by itself, and state that does not depend on settings.
const volatile = /^net\.netfilter\.nf_conntrack_count/

export async function snapshot(execute: Execute): Promise<string> {
  let text = ''
  for (const command of commands) {
    const output = await execute(...command)
    const lines = command[0]?.endsWith('tables-save') ? rulesOf(output) : output.split('\n')
    text += `# ${command.join(' ')}\n${lines.filter((line) => line !== '' && !volatile.test(line)).join('\n')}\n`
  }
  return text
}

/** The snapshot when it no longer changes by itself: IPv6 addresses and their routes come a second or two after a device. */
export async function stillness(execute: Execute): Promise<string> {
  let last = await snapshot(execute)
  for (let tries = 0; tries < 10; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const next = await snapshot(execute)
    if (next === last) break
    last = next
  }
  return last
}

/** Rules and user-made chains. An empty table counts as none: iptables creates one when asked, and cannot remove it. */
function rulesOf(save: string): string[] {
  return save
    .split('\n')
    .filter((line) => line.startsWith('-A') || /^:\S+ -/.test(line))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
}
