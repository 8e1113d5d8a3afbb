/** Hands each event to the log, and to all who listen. */
import { type Emit, type Event, toLog } from './events.js'
import type { Log } from './log.js'

export class EventFeed {
  readonly #log: Emit
  readonly #listeners = new Set<Emit>()

  constructor(log: Log) {
    this.#log = toLog(log)
  }

  readonly emit = (event: Event): void => {
    this.#log(event)
    for (const listener of this.#listeners) listener(event)
  }

  /** Calls the listener with each event from now on, until the function that it returns is called. */
  listen(listener: Emit): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
