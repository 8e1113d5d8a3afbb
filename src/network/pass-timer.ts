/**
 * Decides when the next pass of a network set-up begins: soon after a change, otherwise after a while, and never so often that it costs
 * much.
 */
import { Alarm } from '../base/alarm.js'
import { pause } from '../base/pause.js'

/** A change comes as a burst of lines. The pass begins so long after the first one. */
const settleMs = 20

export interface PassTimerOptions {
  /** Never rejects. */
  pass(): Promise<void>
  /** The wait until the next pass if nothing changes (ms). */
  waitMs(): number
  /**
   * The least time between the beginnings of two passes if the first took so long (ms), so that a flapping link does not take all processor
   * time.
   */
  spacingMs(tookMs: number): number
}

export class PassTimer {
  readonly #alarm = new Alarm()
  #isDue = false

  constructor(private readonly options: PassTimerOptions) {}

  /** Something changed: a pass follows soon. */
  schedule(): void {
    this.#isDue = true
    this.#alarm.ring()
  }

  /** `waitMs` says something else than before. */
  reconsider(): void {
    this.#alarm.ring()
  }

  /** Runs until the signal, and ends with no pass under way. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#scheduled(signal)
      if (signal.aborted) return
      const isPoked = this.#isDue
      await pause(settleMs, signal)
      if (signal.aborted) return
      this.#isDue = false
      const startedAt = performance.now()
      await this.options.pass()
      const tookMs = performance.now() - startedAt
      // Only after a pass that a change caused: the regular look is rare, and a failed pass has a wait of its own.
      if (isPoked) await pause(this.options.spacingMs(tookMs) - tookMs, signal)
    }
  }

  async #scheduled(signal: AbortSignal): Promise<void> {
    while (!this.#isDue && !signal.aborted) {
      const dueAt = performance.now() + this.options.waitMs()
      await this.#alarm.wait(dueAt - performance.now(), signal)
      // A timer may fire a moment early.
      if (performance.now() >= dueAt - 1) return
    }
  }
}
