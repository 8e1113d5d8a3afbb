/** How many questions out of turn a WAN may be asked whose volume costs money. Whoever sends into the void all day must not cost much. */

/** Half a kB each: below 3 MB a month. */
const max = 6
const eachMs = 8 * 60_000

export class TokenBucket {
  #left = max
  #countedAt: number

  /** Milliseconds of a clock that never jumps. */
  constructor(now: number) {
    this.#countedAt = now
  }

  /** Takes one where one is left. */
  take(now: number): boolean {
    this.#left = Math.min(this.#left + (now - this.#countedAt) / eachMs, max)
    this.#countedAt = now
    if (this.#left < 1) return false
    this.#left -= 1
    return true
  }
}
