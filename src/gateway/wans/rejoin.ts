/**
 * A connection with only one WAN would die with it. The kernel joins another WAN to a connection only once: if that subflow was refused, or
 * a NAT has forgotten it, the kernel makes it again only when the WAN's endpoint is made again, and then for all connections. So this is
 * done rarely, at a calm moment.
 */
import type { Engine } from '../../engine/contract.js'
import type { Emit } from '../../telemetry/events.js'
import type { Pace } from '../pace.js'

export interface RejoinOptions {
  engine: Pick<Engine, 'countOnly' | 'stats'>
  pace: Pace
  /** The WANs of one family that connections use now. `rate`: bytes a second. */
  paths(): readonly { wan: string; bind: string; rate: number }[]
  /** Deletes the endpoint of this address and makes it again. */
  remake(bind: string): void
  emit: Emit
  /** Tests pass their own; milliseconds. */
  now?: () => number
}

/** How often to look. A look costs 0.5 us for each connection and WAN. */
const lookMs = 20_000
/** The other WANs' subflows may be about to join a younger connection. */
const joinedMs = 10_000
/** A WAN that carries more, bytes a second, is left alone: its bytes in flight would have to be sent again. */
const calmRate = 20_000
/** If it does not help (a path that drops joins), it is tried less and less often. A join costs some 600 bytes for each connection. */
const pauseMs = { first: 5 * 60_000, longest: 60 * 60_000 }

export class Rejoin {
  readonly #options: RejoinOptions
  readonly #now: () => number
  #seen = ''
  #notBefore = Number.NEGATIVE_INFINITY
  #pauseMs = pauseMs.first

  constructor(options: RejoinOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { engine, pace } = this.#options
    const alarm = pace.alarm()
    while (!signal.aborted) {
      await alarm.wait(pace.after(lookMs), signal)
      if (!signal.aborted && engine.stats().relaying > 0) await this.look()
    }
  }

  async look(): Promise<void> {
    const { engine, paths, remake, emit } = this.#options
    const all = paths()
    if (all.length < 2) return
    const counts = await Promise.all(all.map(({ bind }) => engine.countOnly(bind, joinedMs)))
    const lone = all.filter((_, index) => (counts[index] ?? 0) > 0)
    const [on, another] = lone
    if (on === undefined) {
      this.#seen = ''
      this.#pauseMs = pauseMs.first
      return
    }
    // Not while connections have only this WAN: they would lose their last subflow.
    if (another !== undefined) return
    // One that was just being joined has been by the next look.
    const isNew = this.#seen !== on.bind
    this.#seen = on.bind
    const calm = all.find((path) => path.bind !== on.bind && path.rate < calmRate)
    if (isNew || calm === undefined || this.#now() < this.#notBefore || !paths().some(({ bind }) => bind === calm.bind)) return
    // Nor are those that have just begun there to lose it.
    if ((await engine.countOnly(calm.bind, 0)) > 0) return
    this.#notBefore = this.#now() + this.#pauseMs
    this.#pauseMs = Math.min(2 * this.#pauseMs, pauseMs.longest)
    emit({ type: 'wan-joins-anew', wan: calm.wan, lone: on.wan, count: counts[all.indexOf(on)] ?? 0 })
    remake(calm.bind)
  }
}
