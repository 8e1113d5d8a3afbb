/** The steps of a change: each is a command or a sysctl. */
import type { Family } from '../base/address.js'

export interface SysctlWrite {
  /** Path below /proc/sys. */
  sysctl: string
  value: string
}

export interface KernelCommand {
  argv: string[]
  /** Its standard input. */
  input?: string
}

export type Action = KernelCommand | SysctlWrite

/** What a step changes. A rule or route that is replaced counts as added. */
export type StepKind = `${'endpoint' | 'route' | 'rule'}-${'added' | 'deleted'}` | 'setting' | 'firewall'

export interface Step {
  kind: StepKind
  /** The command as a person would type it. */
  text: string
  action: Action
  /** Restores the state before this step, in this order. */
  undo: Action[]
}

/** `net/ipv4/conf/eth0.100/rp_filter` is written `net.ipv4.conf.eth0/100.rp_filter` (sysctl(8)). */
export function sysctlName(path: string): string {
  return path.replace(/[/.]/g, (one) => (one === '/' ? '.' : '/'))
}

export function textOf(action: Action): string {
  if ('sysctl' in action) {
    const assignment = `${sysctlName(action.sysctl)}=${action.value}`
    return `sysctl -w ${action.value.includes(' ') ? `'${assignment}'` : assignment}`
  }
  const command = action.argv.join(' ')
  return action.input === undefined ? command : `${command} <<'END'\n${action.input}END`
}

export function step(kind: StepKind, action: Action, ...undo: Action[]): Step {
  return { kind, text: textOf(action), action, undo }
}

/** The command line of `ip` for a family. */
export function ip(family: Family, ...words: string[]): { argv: string[] } {
  return { argv: [...(family === 6 ? ['ip', '-6'] : ['ip']), ...words.flatMap((word) => word.split(' '))] }
}
