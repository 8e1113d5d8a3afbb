/** A pace that the test sets: clients are active unless it says otherwise. */
import { Pace } from '../../src/gateway/pace.js'

export function paceOf(clients: { calmMs: number } = { calmMs: 0 }): Pace {
  return new Pace({ stats: () => ({ connections: 1, relaying: 1, pipesInUse: 0, pipesPooled: 0, bytesParked: 0, ...clients }) })
}
