/** The pace of all loops: their own while clients are active. Otherwise they sleep, and wake rarely, all at the same moment. */
import { Alarm } from '../base/alarm.js'
import type { Engine } from '../engine/contract.js'

/**
 * So long after a client's last byte: a stream that only pauses goes on by then, and a trial of the roles is over. Longer than the engine waits before
 * it tells of the next byte, so that none is missed.
 */
const activeMs = 10_000
const restMs = 60_000

export class Pace {
  readonly #engine: Pick<Engine, 'stats'>
  readonly #alarms: Alarm[] = []

  constructor(engine: Pick<Engine, 'stats'>) {
    this.#engine = engine
  }

  /** Nobody notices what goes wrong now, before the next client comes. */
  get isCalm(): boolean {
    return this.#engine.stats().calmMs >= activeMs
  }

  /** How long to wait between two looks, milliseconds. `everyMs`: while clients are active. */
  after(everyMs: number): number {
    return this.isCalm ? Math.max(everyMs, restMs - (performance.now() % restMs)) : everyMs
  }

  /** For a loop: it rings when clients are active again. */
  alarm(): Alarm {
    const alarm = new Alarm()
    this.#alarms.push(alarm)
    return alarm
  }

  /** Clients are active again. */
  wake(): void {
    for (const alarm of this.#alarms) alarm.ring()
  }
}
