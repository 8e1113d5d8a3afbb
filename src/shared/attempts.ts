import type { ConnectionId, Engine, EngineEvent, Way } from '../native/index.js'

/** How an attempt ended; `closed`: the client went away meanwhile. */
export type Outcome = Extract<EngineEvent, { type: 'opened' | 'failed' | 'closed' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>
type Failed = Extract<EngineEvent, { type: 'failed' }>

/** What a race needs to know of its ways. */
export interface Course<Choice> {
  /** Called as an attempt over a way begins. */
  way(choice: Choice): Way
  /** Milliseconds after which the next way is tried beside this one. */
  patienceMs(choice: Choice): number
  /** Told of every way that failed; true where no other way would fare better. */
  failed(choice: Choice, failure: Failed): boolean
}

export type Raced<Choice> =
  | { outcome: Extract<EngineEvent, { type: 'opened' }>; choice: Choice }
  /** No way is left. Attempts may still be under way where the failure was final. */
  | { outcome: Failed | Closed | undefined; choice?: undefined }

/**
 * Lets a session await the engine's answers. Between `begin` and `end` it also remembers that the client went away, because that can
 * happen while the session awaits something else, and the engine says it only once. Nothing is kept after `end`.
 */
export class Attempts {
  readonly #engine: Pick<Engine, 'open'>
  readonly #sessions = new Map<ConnectionId, ((outcome: Outcome) => void) | Closed | 'deciding'>()

  constructor(engine: Pick<Engine, 'open'>) {
    this.#engine = engine
  }

  begin(connection: ConnectionId): void {
    this.#sessions.set(connection, 'deciding')
  }

  end(connection: ConnectionId): void {
    this.#sessions.delete(connection)
  }

  /** Takes what the engine says of a connection; ignored where no session is deciding about it. */
  settle(outcome: Outcome): void {
    const session = this.#sessions.get(outcome.connection)
    if (session === undefined) return
    if (outcome.type === 'closed') this.#sessions.set(outcome.connection, outcome)
    if (typeof session === 'function') session(outcome)
  }

  /**
   * Tries the first way, and each following one when the patience with those before is at its end or all of them have failed. The engine
   * lets the first that gets through win, and ends the others.
   */
  race<Choice>(connection: ConnectionId, choices: readonly Choice[], course: Course<Choice>): Promise<Raced<Choice>> {
    const session = this.#sessions.get(connection)
    if (typeof session === 'object') return Promise.resolve({ outcome: session })
    return new Promise((resolve) => {
      const queue = [...choices]
      const running = new Map<number, Choice>()
      let last = 0
      let lastFailure: Failed | undefined
      let timer: NodeJS.Timeout | undefined
      const done = (raced: Raced<Choice>) => {
        clearTimeout(timer)
        if (raced.outcome?.type !== 'closed') this.#sessions.set(connection, 'deciding')
        resolve(raced)
      }
      const startNext = () => {
        clearTimeout(timer)
        const choice = queue.shift()
        if (choice === undefined) return
        running.set(last, choice)
        this.#engine.open(connection, course.way(choice), last++)
        if (queue.length > 0) timer = setTimeout(startNext, course.patienceMs(choice))
      }
      this.#sessions.set(connection, (outcome) => {
        if (outcome.type === 'closed') return done({ outcome })
        const choice = running.get(outcome.attempt)
        if (choice === undefined) return
        if (outcome.type === 'opened') return done({ outcome, choice })
        running.delete(outcome.attempt)
        lastFailure = outcome
        if (course.failed(choice, outcome)) return done({ outcome })
        if (outcome.left === 0) {
          // Those that had lost against it get their turn, once.
          if (last <= choices.length) queue.push(...running.values())
          running.clear()
        }
        if (queue.length > 0) startNext()
        else if (running.size === 0) done({ outcome: lastFailure })
      })
      startNext()
      if (running.size === 0) done({ outcome: undefined })
    })
  }
}
