/** The orderly end of a long-running role. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Engine } from '../engine/contract.js'

/** Waits until the engine has no connection left, at most so many seconds, or until told to hurry. Returns how many are left. */
export async function drain(engine: Engine, seconds: number, hurry: AbortSignal): Promise<number> {
  const deadline = performance.now() + seconds * 1000
  let left = engine.stats().connections
  while (left > 0 && performance.now() < deadline && !hurry.aborted) {
    await sleep(50, undefined, { signal: hurry }).catch(() => undefined)
    left = engine.stats().connections
  }
  return left
}
