/** Which limits are reached, and how many clients were refused so far: a fold over events. */
import type { Event } from '../telemetry/events.js'

export class LimitTally {
  readonly #reached = new Set<string>()
  readonly #refused = new Map<string, number>()

  readonly record = (event: Event): void => {
    if (event.type === 'limit') {
      if (event.isReached) this.#reached.add(event.cause)
      else this.#reached.delete(event.cause)
    } else if (event.type === 'client-refused') this.#count(event.cause, event.count)
    else if (event.type === 'others-refused') this.#count('others', event.count)
  }

  /** `refused`: by cause; `others`: of those the log does not name. */
  read(): { reached: string[]; refused: Record<string, number> } {
    return { reached: [...this.#reached], refused: Object.fromEntries(this.#refused) }
  }

  #count(cause: string, count: number): void {
    this.#refused.set(cause, (this.#refused.get(cause) ?? 0) + count)
  }
}
