/**
 * Watches an interface's counters for the first signs of a WAN that died in silence: a steady stream of received bytes that stops, and
 * bytes that are sent while none come back. Without clock or I/O.
 */

import type { Carried } from '../interface-counters.js'

/** Looked at so often while bytes flow. A look wakes a process that sleeps: at 25 ms it took 2 % of a core. */
export const flowTickMs = 50
/** A stream is steady when bytes came in so many of the last `ticks` looks before the stop: a page that was fetched is none. */
const ticks = 8
const steadyTicks = 5

export class Flow {
  #received = -1
  /** The last looks up to the one that saw bytes last, newest in the lowest bit. */
  #history = 0
  /** This stop was told. */
  #told = false
  #emptyTicks = 0
  #lastAt = Number.NEGATIVE_INFINITY
  #sent = -1
  /** Since when something waits for an answer; undefined once it was told, too. */
  #waitsSince: number | undefined

  /** An interface's counters of bytes. */
  look({ received, sent }: Carried, now: number): void {
    this.#lookReceived(received, now)
    const went = this.#sent >= 0 && sent !== this.#sent
    this.#sent = sent
    if (this.#lastAt === now) this.#waitsSince = undefined
    else if (went) this.#waitsSince ??= now
  }

  /** True after each such time in which nothing came back for what was sent. */
  unanswered(patienceMs: number, now: number): boolean {
    if (this.#waitsSince === undefined || now - this.#waitsSince < patienceMs) return false
    this.#waitsSince = undefined
    return true
  }

  #lookReceived(received: number, now: number): void {
    const came = this.#received >= 0 && received !== this.#received
    this.#received = received
    if (came) {
      // Silence that ended is part of the history.
      this.#history = ((this.#history << (this.#emptyTicks + 1)) | 1) & ((1 << ticks) - 1)
      this.#emptyTicks = 0
      this.#lastAt = now
      this.#told = false
    } else {
      this.#emptyTicks = Math.min(this.#emptyTicks + 1, ticks)
    }
  }

  /** Something came within the last second. */
  isRecent(now: number): boolean {
    return now - this.#lastAt < 1000
  }

  /** True once for each stop: a steady stream, and nothing for so many milliseconds since. */
  stopped(patienceMs: number, now: number): boolean {
    if (this.#told || now - this.#lastAt < patienceMs || countBits(this.#history) < steadyTicks) return false
    this.#told = true
    return true
  }
}

function countBits(word: number): number {
  let count = 0
  for (let rest = word; rest !== 0; rest &= rest - 1) count += 1
  return count
}
