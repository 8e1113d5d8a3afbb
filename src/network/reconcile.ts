/** Keeps the network as the config wants it while the gateway runs: a pass after every change in the kernel. */
import type { Emit } from '../telemetry/events.js'
import { PassTimer } from './pass-timer.js'
import type { NetworkPlan, WanAddresses } from './state.js'

/** The time from one pass to the next, in times of its duration. */
const spacing = 8
/** On a busy machine a pass takes long without costing more, and a WAN that is back must not wait for it. */
const maxSpacingMs = 1000
const minSpacingMs = 100
/** After a failed pass, the wait doubles from this to `lookMs`. */
const retryMs = 200
/**
 * How often to look for changes that no monitor reports, such as an endpoint that another program deleted. At rest the time doubles from look to
 * look: seven programs are started for each.
 */
const lookMs = 10_000
const longestLookMs = 320_000

export interface ReconcileOptions {
  /** One pass; returns what it did. `quick`: it need not look for changes that no monitor reports. */
  apply(quick: boolean): Promise<NetworkPlan>
  /** No client is active. */
  isCalm(): boolean
  /** Called with the WANs that can be used when they have changed. */
  onWans(wans: readonly WanAddresses[]): void
  emit: Emit
  /** The WANs and notes that were known at the start. */
  initial: Pick<NetworkPlan, 'wans' | 'notes'>
}

export class Reconciler {
  readonly #options: ReconcileOptions
  #wans: string
  #notes: ReadonlySet<string>
  #failure = ''
  #failures = 0
  /** When the next look is due, and how long after the last one. */
  #lookAt = performance.now() + lookMs
  #lookMs = lookMs
  #isBlocked = false
  readonly #timer = new PassTimer({
    pass: () => this.#pass(),
    waitMs: () => this.#waitMs(),
    spacingMs: (tookMs) => Math.min(Math.max(minSpacingMs, spacing * tookMs), maxSpacingMs),
  })

  constructor(options: ReconcileOptions) {
    this.#options = options
    this.#wans = JSON.stringify(options.initial.wans)
    this.#notes = new Set(options.initial.notes)
  }

  /** Something changed: a pass follows soon. */
  schedule(): void {
    this.#timer.schedule()
  }

  /** A pass follows soon that looks at everything. */
  lookNow(): void {
    this.#lookAt = Number.NEGATIVE_INFINITY
    this.schedule()
  }

  /** Within `lookMs` a pass looks at everything. Not at once: clients may just have come, and must not wait for it. */
  lookSoon(): void {
    this.#lookMs = lookMs
    this.#lookAt = Math.min(this.#lookAt, performance.now() + lookMs)
    this.#timer.reconsider()
  }

  /** A pass follows soon, and calls `onWans` even if they have not changed. `logged`: notes that need not be logged again. */
  forceReport(logged: readonly string[]): void {
    this.#wans = ''
    this.#notes = new Set([...this.#notes, ...logged])
    this.schedule()
  }

  /** Runs until the signal, and ends with no pass under way. Never rejects. */
  run(signal: AbortSignal): Promise<void> {
    return this.#timer.run(signal)
  }

  #waitMs(): number {
    const untilLookMs = Math.max(this.#lookAt - performance.now(), 0)
    return this.#failures === 0 ? untilLookMs : Math.min(retryMs * 2 ** (this.#failures - 1), lookMs)
  }

  async #pass(): Promise<void> {
    const { apply, isCalm, onWans, emit } = this.#options
    const startedAt = performance.now()
    // A timer may fire a moment early.
    const quick = startedAt < this.#lookAt - 10
    // Now, because somebody may ask for the next look meanwhile.
    if (!quick) {
      this.#lookMs = isCalm() && !this.#isBlocked ? Math.min(2 * this.#lookMs, longestLookMs) : lookMs
      this.#lookAt = startedAt + this.#lookMs
    }
    try {
      const { steps, wans, notes, isBlocked = false } = await apply(quick)
      if (isBlocked && !this.#isBlocked) this.lookSoon()
      this.#isBlocked = isBlocked
      if (this.#failure !== '') emit({ type: 'network-works-again' })
      this.#failure = ''
      this.#failures = 0
      if (steps.length > 0) emit({ type: 'network-changed', steps: steps.map(({ text }) => text) })
      for (const note of notes) if (!this.#notes.has(note)) emit({ type: 'network-note', note })
      this.#notes = new Set(notes)
      const now = JSON.stringify(wans)
      if (now === this.#wans) return
      this.#wans = now
      onWans(wans)
    } catch (error) {
      if (!quick) this.#lookAt = Number.NEGATIVE_INFINITY
      // Often the cause is a change during the pass, and it has already scheduled the next one.
      const { message } = error as Error
      if (message !== this.#failure) emit({ type: 'network-failed', reason: message, isAtStart: false })
      this.#failure = message
      this.#failures++
    }
  }
}
