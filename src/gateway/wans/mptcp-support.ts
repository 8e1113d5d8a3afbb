/** What a WAN's path does to MPTCP, as far as probes have found out. Without clock or I/O. */
import type { Protocol } from '../../engine/contract.js'

/** Whether a path carries MPTCP changes seldom, and every such probe makes the kernel join the other WANs, metered ones too. */
const checkMs = 15 * 60_000
/** A fault is mended sooner than it comes. */
const recheckMs = 10_000
/** A HAG without MPTCP makes every connection fall back: not a question for each. */
const doubtMs = 2000

export class MptcpSupport {
  /** `blocked`: its SYNs vanish, those of TCP do not. */
  state: 'unknown' | 'yes' | 'stripped' | 'blocked' = 'unknown'
  /** Milliseconds of a clock that never jumps, as all the times here. */
  dueAt = 0
  #askedAt = Number.NEGATIVE_INFINITY
  readonly #metered: boolean

  constructor(metered: boolean) {
    this.#metered = metered
  }

  get protocol(): Protocol {
    return this.state === 'blocked' ? 'tcp' : 'mptcp'
  }

  /** What begins here is not bonded. */
  get isPoor(): boolean {
    return this.state === 'blocked' || this.state === 'stripped'
  }

  /** What a probe over MPTCP, or its failure where TCP passes, says; undefined says nothing. True where that is news for people. */
  recordProbe(seen: Protocol | 'blocked' | undefined, now: number): boolean {
    if (seen === undefined) return false
    const before = this.state
    this.state = seen === 'mptcp' ? 'yes' : seen === 'tcp' ? 'stripped' : 'blocked'
    this.#askedAt = now
    this.dueAt = now + (this.#metered || this.state === 'yes' ? checkMs : recheckMs)
    return this.state !== before && (before !== 'unknown' || this.state !== 'yes')
  }

  /** A connection did not become what it should. True where that leads to another question. */
  recordFallback(): boolean {
    if (this.state !== 'yes') return false
    this.dueAt = Math.min(this.dueAt, this.#askedAt + doubtMs)
    return true
  }
}
