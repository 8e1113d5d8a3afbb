/** The smallest config, and what a user reads about a wrong one. */
import t from 'tap'
import { BondsocksError } from '../../src/base/errors.js'

export const minimal = `lan:
  interfaces: [br0]
wans:
  - name: dsl
    interface: dsl
hags:
  - address: 203.0.113.3
`

/** The lines a user reads. */
export function faults(read: () => unknown): string[] {
  try {
    read()
  } catch (error) {
    t.type(error, BondsocksError)
    t.equal((error as BondsocksError).exitCode, 2)
    return (error as BondsocksError).message.split('\n')
  }
  return []
}
