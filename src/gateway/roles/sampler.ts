/** Reports what the WANs carry: their rates, once a second while clients are active, and whether their monthly volume is used up. */
import type { Emit } from '../../telemetry/events.js'
import type { MachineFact, Rates } from '../facts.js'
import { type Carried, readCounters } from '../interface-counters.js'
import type { Pace } from '../pace.js'
import { Volume } from './volume.js'

export interface RoleSamplerOptions {
  wans: readonly { name: string; monthly_gb?: number | undefined }[]
  /** The interface of a WAN, by the kernel's name. */
  deviceOf(wan: string): string
  volumeFile: string
  pace: Pace
  report(fact: MachineFact): void
  emit: Emit
  /** Tests pass their own. */
  counters?: (() => Map<string, Carried>) | undefined
}

const tickMs = 1000

export class RoleSampler {
  readonly #options: RoleSamplerOptions
  readonly #volume: Volume | undefined
  readonly #totals = new Map<string, Carried>()
  #lookedAt = performance.now()

  constructor(options: RoleSamplerOptions) {
    this.#options = options
    const { wans, emit, volumeFile } = options
    if (wans.some(({ monthly_gb }) => monthly_gb !== undefined)) this.#volume = new Volume({ file: volumeFile, emit })
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { pace, report } = this.#options
    const alarm = pace.alarm()
    while (!signal.aborted) {
      report({ type: 'rates-sampled', rates: this.#sample(), exhausted: this.#exhausted() })
      await alarm.wait(pace.after(tickMs), signal)
    }
    await this.#volume?.save()
  }

  /** Of the month, and what is allowed; nothing without a limit. */
  volumeOf(wan: string): { month_bytes?: number; month_limit_bytes?: number } {
    const limit = this.#options.wans.find(({ name }) => name === wan)?.monthly_gb
    return limit === undefined ? {} : { month_bytes: this.#volume?.used(wan) ?? 0, month_limit_bytes: limit * 1e9 }
  }

  #exhausted(): Set<string> {
    const isExhausted = ({ name, monthly_gb = Number.POSITIVE_INFINITY }: RoleSamplerOptions['wans'][number]) =>
      (this.#volume?.used(name) ?? 0) >= monthly_gb * 1e9
    return new Set(this.#options.wans.filter(isExhausted).map(({ name }) => name))
  }

  #sample(): Map<string, Rates> {
    const wans = this.#options.wans.map(({ name }) => ({ name, interface: this.#options.deviceOf(name) }))
    const now = performance.now()
    const seconds = (now - this.#lookedAt) / 1000
    const counters = (this.#options.counters ?? readCounters)()
    this.#volume?.count(wans, counters, now)
    this.#lookedAt = now
    return new Map(
      wans.map(({ name, interface: device }) => {
        const { received, sent } = counters.get(device) ?? { received: 0, sent: 0 }
        const last = this.#totals.get(name)
        const rate = (total: number, then = total) => (seconds > 0 && total > then ? (total - then) / seconds : 0)
        this.#totals.set(name, { received, sent })
        return [name, { receivedPerSecond: rate(received, last?.received), sentPerSecond: rate(sent, last?.sent) }]
      }),
    )
  }
}
