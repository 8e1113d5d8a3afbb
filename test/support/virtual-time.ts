/** A clock that the test moves: `performance.now`, `setTimeout` and `clearTimeout` follow it while it is in force. */
import type { Scope } from './namespaces.js'

const real = { setTimeout, clearTimeout, now: performance.now }

interface Timer {
  at: number
  number: number
  run: () => void
}

export class VirtualTime {
  now = 1_000_000
  #timers: Timer[] = []
  #last = 0

  start(): void {
    const begin = (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => {
      const timer = { at: this.now + Math.max(ms, 0), number: ++this.#last, run: () => run(...args) }
      this.#timers.push(timer)
      return { ...timer, unref: () => timer, ref: () => timer }
    }
    globalThis.setTimeout = begin as unknown as typeof setTimeout
    globalThis.clearTimeout = ((timer?: Timer) => {
      this.#timers = this.#timers.filter(({ number }) => number !== timer?.number)
    }) as unknown as typeof clearTimeout
    performance.now = () => this.now
  }

  /** Puts the real clock back. */
  end(): void {
    globalThis.setTimeout = real.setTimeout
    globalThis.clearTimeout = real.clearTimeout
    performance.now = real.now
    this.#timers = []
  }

  /** Lets all happen that is due by then, and what follows from it; calls back after each moment. */
  async advance(ms: number, each: () => void = () => {}): Promise<void> {
    const until = this.now + ms
    await this.settle()
    for (;;) {
      const next = this.#timers.reduce<Timer | undefined>(
        (first, one) =>
          one.at <= until && (first === undefined || one.at < first.at || (one.at === first.at && one.number < first.number))
            ? one
            : first,
        undefined,
      )
      if (next === undefined) break
      this.#timers = this.#timers.filter((one) => one !== next)
      this.now = Math.max(this.now, next.at)
      next.run()
      await this.settle()
      each()
    }
    this.now = until
  }

  /** In steps of 5 ms, for so long at most. Returns whether it came to be so. */
  async until(isSo: () => boolean, maxMs = 10_000): Promise<boolean> {
    await this.settle()
    for (let waitedMs = 0; !isSo() && waitedMs < maxMs; waitedMs += 5) await this.advance(5)
    return isSo()
  }

  /** Lets promises that are settled go on. */
  async settle(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** In force until the end of the test. */
export function virtualTime(scope: Scope): VirtualTime {
  const time = new VirtualTime()
  time.start()
  scope.teardown(() => time.end())
  return time
}
