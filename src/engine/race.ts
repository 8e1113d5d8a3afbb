import type { ConnectionId, DialSpec, Engine, EngineEvent } from './contract.js'

/** How an attempt ended. `closed`: the client went away before. */
export type DialOutcome = Extract<EngineEvent, { type: 'opened' | 'failed' | 'closed' }>
type Opened = Extract<EngineEvent, { type: 'opened' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>
type Failed = Extract<EngineEvent, { type: 'failed' }>

/** What a race needs to know about its choices, the paths. */
export interface RaceRules<Choice> {
  /** Called when the attempt over a path begins. */
  dialSpec(choice: Choice): DialSpec
  /** True if a path has become useless since the race began; it is left out. */
  isGone?(choice: Choice): boolean
  /** Milliseconds after which the next path is tried beside this one. */
  patienceMs(choice: Choice): number
  /** Called with the path that got through, before any other event of the connection. */
  opened?(choice: Choice, opened: Opened): void
  /** Called with every path that failed. Returns true if no other path would do better. */
  failed(choice: Choice, failure: Failed): boolean
  /** Called with every path that had no answer yet when a later one got through. */
  lostRace?(choice: Choice): void
}

/** The engine tries the first path already. `answered`: its answer comes next; `late`: it has no answer, and the patience is over. */
export type HeadStart = 'answered' | 'late'

export type RaceResult<Choice> =
  | { outcome: Opened; choice: Choice }
  /** No path is left. If the failure was final, attempts may still be under way. */
  | { outcome: Failed | Closed | undefined; choice?: undefined }

/**
 * Lets a session await the engine's answers. Between `begin` and `end` it also remembers that the client went away: that can happen while
 * the session awaits something else, and the engine tells it only once. Nothing is kept after `end`.
 */
export class DialRaces {
  readonly #engine: Pick<Engine, 'dial'>
  readonly #sessions = new Map<ConnectionId, DialRace<unknown> | Closed | 'deciding'>()

  constructor(engine: Pick<Engine, 'dial'>) {
    this.#engine = engine
  }

  begin(connection: ConnectionId): void {
    this.#sessions.set(connection, 'deciding')
  }

  end(connection: ConnectionId): void {
    const session = this.#sessions.get(connection)
    if (session instanceof DialRace) session.stop()
    this.#sessions.delete(connection)
  }

  /** For every outcome that the engine reports. Ignored if no session is deciding about the connection. */
  settle(outcome: DialOutcome): void {
    const session = this.#sessions.get(outcome.connection)
    if (session === undefined || (session instanceof DialRace && !session.settle(outcome))) return
    this.#sessions.set(outcome.connection, outcome.type === 'closed' ? outcome : 'deciding')
  }

  /**
   * Tries the first path (unless the engine does already), and the next one when the patience with the one before is over or an attempt has
   * failed. The engine lets the first attempt that gets through win, and ends the others.
   */
  race<Choice>(
    connection: ConnectionId,
    choices: readonly Choice[],
    rules: RaceRules<Choice>,
    headStart?: HeadStart,
  ): Promise<RaceResult<Choice>> {
    const session = this.#sessions.get(connection)
    if (typeof session === 'object' && !(session instanceof DialRace)) return Promise.resolve({ outcome: session })
    if (choices.length === 0) return Promise.resolve({ outcome: undefined })
    return new Promise((resolve, reject) => {
      const race = new DialRace(this.#engine, connection, choices, rules, resolve, reject, headStart === undefined ? 0 : 1)
      this.#sessions.set(connection, race as DialRace<unknown>)
      if (headStart !== 'answered') race.startNext()
    })
  }
}

/** An attempt's number is the index of its choice. */
class DialRace<Choice> {
  /** Choices that failed. Created when the first one does. */
  #failed: Set<number> | undefined
  #next: number
  #timer: NodeJS.Timeout | undefined

  constructor(
    private readonly engine: Pick<Engine, 'dial'>,
    private readonly connection: ConnectionId,
    private readonly choices: readonly Choice[],
    private readonly rules: RaceRules<Choice>,
    private readonly resolve: (raced: RaceResult<Choice>) => void,
    private readonly reject: (error: unknown) => void,
    headStart: number,
  ) {
    this.#next = headStart
  }

  /** False if no path is left to start. */
  startNext(): boolean {
    while (this.#next < this.choices.length && this.#isOut(this.#next)) this.#next++
    const attempt = this.#next
    if (attempt >= this.choices.length) return false
    this.#next++
    this.engine.dial(this.connection, this.rules.dialSpec(this.#choice(attempt)), attempt)
    this.#wait(attempt)
    return true
  }

  #isOut(attempt: number): boolean {
    return this.#failed?.has(attempt) === true || this.rules.isGone?.(this.#choice(attempt)) === true
  }

  /** True when the race is over. */
  settle(outcome: DialOutcome): boolean {
    this.stop()
    if (outcome.type === 'failed' && this.#goesOn(outcome)) return false
    if (outcome.type === 'opened') {
      const choice = this.#choice(outcome.attempt)
      this.#tellLostRaces(outcome.attempt)
      this.rules.opened?.(choice, outcome)
      this.resolve({ outcome, choice })
    } else this.resolve({ outcome })
    return true
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #tellLostRaces(winner: number): void {
    for (let attempt = 0; attempt < winner; attempt++) {
      if (this.#failed?.has(attempt) !== true) this.rules.lostRace?.(this.#choice(attempt))
    }
  }

  #goesOn(failed: Failed): boolean {
    const { attempt, left } = failed
    if (left > 0 && failed.failure.code === 'EMFILE') {
      // Descriptors are scarce, so no second attempt may join: the path keeps its turn.
      this.#next = Math.min(this.#next, attempt)
      this.#wait(attempt)
      return true
    }
    if (this.rules.failed(this.#choice(attempt), failed)) return false
    this.#failed ??= new Set()
    this.#failed.add(attempt)
    // The attempts that were aborted when this one went on alone get another chance. If one of them is under way all the same, because its
    // `dial` crossed this event, the engine ignores a second `dial` of it.
    if (left === 0) this.#next = 0
    return this.startNext() || left > 0
  }

  #wait(attempt: number): void {
    if (this.#next >= this.choices.length) return
    this.#timer = setTimeout(
      () => {
        try {
          this.startNext()
        } catch (error) {
          this.reject(error)
        }
      },
      this.rules.patienceMs(this.#choice(attempt)),
    )
  }

  #choice(attempt: number): Choice {
    return this.choices[attempt] as Choice
  }
}
