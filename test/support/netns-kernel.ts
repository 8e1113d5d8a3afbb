/** The real kernel, seen from inside a test's namespace. Only the state file is ours: it lives in memory. */
import { runCommand } from '../../src/network/command.js'
import type { Kernel } from '../../src/network/kernel.js'
import type { Namespace } from './namespaces.js'

export interface NetnsKernel extends Kernel {
  state: string | undefined
  /** Commands matching this fail before they run, once for each entry. */
  failures: RegExp[]
}

/** `flavour` puts `iptables-legacy` in the place of `iptables`. */
export function netnsKernel(namespace: Namespace, flavour?: 'legacy' | 'nft'): NetnsKernel {
  const named = (word: string) => (flavour ? word.replace(/^(ip6?tables)/, `$1-${flavour}`) : word)
  const run = (argv: readonly string[], input?: string) => runCommand(namespace.argv(...argv), input)
  return {
    state: undefined,
    failures: [],

    async run([program = '', ...words], input) {
      const at = this.failures.findIndex((pattern) => pattern.test([program, ...words].join(' ')))
      if (at >= 0) {
        this.failures.splice(at, 1)
        return { code: 2, stdout: '', stderr: 'injected failure\n' }
      }
      return run([named(program), ...words], input)
    },

    async readSysctls(patterns) {
      const { stdout } = await run(['sh', '-c', `cd /proc/sys && grep -Hs '' ${patterns.join(' ')}`])
      const lines = stdout.split('\n').filter((line) => line !== '')
      return new Map(
        lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).replace(/\s+/g, ' ')]),
      )
    },

    async writeSysctl(path, value) {
      const { code, stderr } = await run(['sh', '-c', `echo '${value}' > /proc/sys/${path}`])
      if (code !== 0) throw new Error(stderr)
    },

    async readState() {
      return this.state
    },

    async writeState(text) {
      this.state = text
    },

    async mayAdminister() {
      return true
    },
  }
}
