/** Token bucket for extra probes of metered WANs, so that a client that keeps sending to nowhere costs little. */

/** Each probe takes half a kB: below 3 MB a month. */
const max = 6
const eachMs = 8 * 60_000

export class TokenBucket {
  #left = max
  #countedAt: number

  /** Milliseconds of a clock that never jumps. */
  constructor(now: number) {
    this.#countedAt = now
  }

  /** Takes one if there is one left. */
  take(now: number): boolean {
    this.#left = Math.min(this.#left + (now - this.#countedAt) / eachMs, max)
    this.#countedAt = now
    if (this.#left < 1) return false
    this.#left -= 1
    return true
  }
}
