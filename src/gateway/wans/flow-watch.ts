/** Looks often while something flows over the WANs, and tells at once when a steady stream stops. */
import type { Engine } from '../../engine/contract.js'
import type { Carried } from '../interface-counters.js'
import { isUsable } from '../model.js'
import type { Pace } from '../pace.js'
import { type Health, stopPatience } from './health.js'
import { Flow, flowTickMs } from './traffic-watch.js'

/** While nothing flows, how often to look whether something begins to: its stream may stop soon. */
const idleTickMs = 250
/** Longer than a round trip and a delayed acknowledgement (RFC 1122 section 4.2.3.2) of most paths. */
const unansweredMs = 300

interface KnownLink {
  readonly metered: boolean
  readonly device: string
  readonly address: string | undefined
  readonly health: Health
}

export interface FlowWatchOptions {
  engine: Pick<Engine, 'stats'>
  pace: Pace
  /** As known now, always in the same order. */
  links(): readonly KnownLink[]
  counters(): Map<string, Carried>
  /** Nothing comes in any more over this link. `reason`: if no HAG answers either. */
  onSilent(index: number, reason: string): void
}

export class FlowWatch {
  readonly #options: FlowWatchOptions
  readonly #flows = new Map<string, Flow>()

  constructor(options: FlowWatchOptions) {
    this.#options = options
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { engine, pace } = this.#options
    const alarm = pace.alarm()
    while (!signal.aborted) {
      // Without connections the end of a stream harms nobody.
      const isRelaying = engine.stats().relaying > 0
      if (!isRelaying) this.#flows.clear()
      const isFlowing = isRelaying && this.#look(performance.now())
      await alarm.wait(pace.after(isFlowing ? flowTickMs : idleTickMs), signal)
    }
  }

  /** Whether something flows. */
  #look(now: number): boolean {
    const { links, counters, onSilent } = this.#options
    // Something may flow over a connection that has just begun.
    let isFlowing = this.#flows.size === 0
    for (const [device, carried] of counters()) {
      const own = links().flatMap((link, index) =>
        link.device === device && link.address !== undefined && isUsable(link.health) ? [{ link, index }] : [],
      )
      if (own.length === 0) continue
      const flow = this.#flows.get(device) ?? new Flow()
      this.#flows.set(device, flow)
      flow.look(carried, now)
      if (flow.isRecent(now)) isFlowing = true
      const stopMs = Math.max(...own.map(({ link }) => stopPatience(link.health).stopMs))
      // Not on a metered WAN: acknowledgements alone need no answer, so there the slower look must do.
      const silence = 'no HAG answers over it'
      const isUnanswered = flow.unanswered(unansweredMs, now) && !own.some(({ link }) => link.metered)
      const reason = flow.stopped(stopMs, now) ? `what it carried has stopped, and ${silence}` : isUnanswered && silence
      if (reason === false) continue
      for (const { index } of own) onSilent(index, reason)
    }
    return isFlowing
  }
}
