/** Keeps the memory of a long-running role small. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * To be called when all is loaded: frees what loading left behind (3 MB), and from now on allows optimized code for hot functions (see
 * main.ts).
 */
export function hasStarted(): void {
  // New contexts have a `gc`.
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  setFlagsFromString('--opt')
}
