/** What keeps a long-running role small. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * To be called when all is loaded: what that has left behind goes (3 MB), and what is hot from now on is worth being compiled to optimized
 * code (see main.ts).
 */
export function hasStarted(): void {
  // Contexts that are made from now on have a `gc`.
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  setFlagsFromString('--opt')
}
