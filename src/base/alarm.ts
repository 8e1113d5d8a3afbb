/** The longest that setTimeout knows; what is longer would end at once. */
const longestMs = 2 ** 31 - 1

/** What a loop waits for: its next due moment, or that somebody rings. */
export class Alarm {
  #hasRung = false
  #wake: (() => void) | undefined

  /** Ends the wait that is under way, or else the next one. */
  ring(): void {
    this.#hasRung = true
    this.#wake?.()
  }

  /** Resolves after so many milliseconds, which may be infinite; when it is rung; or with the signal. One wait at a time. */
  wait(milliseconds: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        this.#hasRung = false
        this.#wake = undefined
        resolve()
      }
      const timer = setTimeout(done, Math.min(milliseconds, longestMs))
      signal.addEventListener('abort', done, { once: true })
      this.#wake = done
      if (this.#hasRung || signal.aborted) done()
    })
  }
}
