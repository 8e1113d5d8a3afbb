/** Users' connections over a HAG: what they prove outweighs what our own probes doubt. */
import type { Engine, Inspection } from '../../engine/contract.js'
import { type Hag, isSameHag } from '../model.js'

/** A connection that began before that says nothing of what is served now. */
const recentMs = 60_000

/** Those that are relayed over it. */
export async function relayedOver(engine: Pick<Engine, 'inspect' | 'stats'>, hag: Hag): Promise<Inspection[]> {
  if (engine.stats().relaying === 0) return []
  return (await engine.inspect()).filter(({ remote }) => isSameHag(remote, hag))
}

/** Whether it has lately served one of this kind. */
export async function serves(
  engine: Pick<Engine, 'inspect' | 'stats'>,
  hag: Hag,
  isKind: (connection: Inspection) => boolean,
): Promise<boolean> {
  const isServed = (one: Inspection) => one.received > 0 && one.ageMs < recentMs && isKind(one)
  return (await relayedOver(engine, hag)).some(isServed)
}
