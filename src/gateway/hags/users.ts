/** Users' connections over a HAG: what they prove counts more than our own failed probes. */
import type { Engine, Inspection } from '../../engine/contract.js'
import { type Hag, isSameHag } from '../model.js'

/** A connection that began before that tells nothing about what is served now. */
const recentMs = 60_000

/** The connections that are relayed over the HAG. */
export async function relayedOver(engine: Pick<Engine, 'inspect' | 'stats'>, hag: Hag): Promise<Inspection[]> {
  if (engine.stats().relaying === 0) return []
  return (await engine.inspect()).filter(({ remote }) => isSameHag(remote, hag))
}

/** Whether the HAG has recently served a connection of this kind. */
export async function serves(
  engine: Pick<Engine, 'inspect' | 'stats'>,
  hag: Hag,
  isKind: (connection: Inspection) => boolean,
): Promise<boolean> {
  const isServed = (one: Inspection) => one.received > 0 && one.ageMs < recentMs && isKind(one)
  return (await relayedOver(engine, hag)).some(isServed)
}
