import type { ConnectionId, Engine, EngineEvent, Way } from '../native/index.js'

/** How an attempt ended; `closed`: the client went away meanwhile. */
export type Outcome = Extract<EngineEvent, { type: 'opened' | 'failed' | 'closed' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>

/**
 * Lets a session await the engine's answer to `open`. Between `begin` and `end` it also remembers that the client went away, because
 * that can happen while the session awaits something else, and the engine says it only once. Nothing is kept after `end`.
 */
export class Attempts {
  readonly #engine: Engine
  readonly #sessions = new Map<ConnectionId, ((outcome: Outcome) => void) | Closed | 'deciding'>()

  constructor(engine: Engine) {
    this.#engine = engine
  }

  begin(connection: ConnectionId): void {
    this.#sessions.set(connection, 'deciding')
  }

  end(connection: ConnectionId): void {
    this.#sessions.delete(connection)
  }

  open(connection: ConnectionId, way: Way): Promise<Outcome> {
    const session = this.#sessions.get(connection)
    if (typeof session === 'object') return Promise.resolve(session)
    return new Promise((resolve) => {
      this.#sessions.set(connection, resolve)
      this.#engine.open(connection, way)
    })
  }

  /** Takes what the engine says of a connection; ignored where no session is deciding about it. */
  settle(outcome: Outcome): void {
    const session = this.#sessions.get(outcome.connection)
    if (session === undefined) return
    this.#sessions.set(outcome.connection, outcome.type === 'closed' ? outcome : 'deciding')
    if (typeof session === 'function') session(outcome)
  }
}
