/** The orderly end of gateway and HAG. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Engine } from '../engine/contract.js'
import type { Emit } from '../telemetry/events.js'

/** Accepts no new connections, and waits until none is left, for at most so many seconds or until `hurry`. */
export async function drain(engine: Engine, seconds: number, hurry: AbortSignal, emit: Emit): Promise<void> {
  engine.stopListening()
  let left = engine.stats().connections
  emit({ type: 'stopping', seconds, connections: left })
  const deadline = performance.now() + seconds * 1000
  while (left > 0 && performance.now() < deadline && !hurry.aborted) {
    await sleep(50, undefined, { signal: hurry }).catch(() => undefined)
    left = engine.stats().connections
  }
  if (left > 0) emit({ type: 'connections-aborted', count: left })
}
