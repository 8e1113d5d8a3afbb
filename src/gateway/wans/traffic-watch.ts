/**
 * Watches an interface's counters for the first signs that a WAN has died silently: a steady stream of received bytes stops, or bytes are
 * sent and none come back. Without clock or I/O.
 */

import type { Carried } from '../interface-counters.js'

/** How often to look while bytes flow. Each look wakes the process: at 25 ms that took 2 % of a core. */
export const flowTickMs = 50
/** A stream is steady if bytes came in so many of the last `ticks` looks before it stopped; fetching a page is not. */
const ticks = 8
const steadyTicks = 5

export class Flow {
  #received = -1
  /** A bit for each look up to the last one that saw bytes; the newest is the lowest bit. */
  #history = 0
  /** This stop was reported. */
  #told = false
  #emptyTicks = 0
  #lastAt = Number.NEGATIVE_INFINITY
  #sent = -1
  /** Since when sent bytes wait for an answer; undefined also after that was reported. */
  #waitsSince: number | undefined

  /** An interface's counters of bytes. */
  look({ received, sent }: Carried, now: number): void {
    this.#lookReceived(received, now)
    const went = this.#sent >= 0 && sent !== this.#sent
    this.#sent = sent
    if (this.#lastAt === now) this.#waitsSince = undefined
    else if (went) this.#waitsSince ??= now
  }

  /** True if nothing came back for sent bytes in so many milliseconds; again after each such time. */
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
