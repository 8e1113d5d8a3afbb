/** Keeps the memory of gateway and HAG small. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * To be called when all is loaded: frees what loading left behind (3 MB), and from now on allows compiled code for hot functions (see
 * main.ts).
 */
export function hasStarted(): void {
  // New contexts have a `gc`.
  setFlagsFromString('--expose-gc')
  // Also the bytecode of all functions that are not running, and how often they ran: otherwise those that were hot while loading are optimized
  // now, which takes 4 MB resident memory.
  setFlagsFromString('--stress-flush-code')
  runInNewContext('gc')()
  for (const flag of ['--no-stress-flush-code', '--opt', '--sparkplug']) setFlagsFromString(flag)
}
