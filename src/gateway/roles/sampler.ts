/** Which WANs do their duty now: feeds the counters, the volume and the WANs' health to the selection, once a second. */
import { pause } from '../../base/pause.js'
import type { Log } from '../../telemetry/log.js'
import { readCounters } from '../interface-counters.js'
import { initial, select } from './roles.js'
import type { Role, Selection } from './selection.js'
import { Volume } from './volume.js'

export interface RoleSamplerOptions {
  wans: readonly { name: string; role: Role; monthly_gb?: number | undefined }[]
  /** The interface of a WAN, by the kernel's name. */
  deviceOf(wan: string): string
  /** Neither usable nor lost: not known yet. */
  health(wan: string): { usable: boolean; lost: boolean; rttMs: number | undefined }
  volumeFile: string
  log: Log
  /** Another set of WANs is used, and not because of an `update` from outside. */
  onChange(): void
}

const tickMs = 1000
/** By then the first probes are answered; until then what is not known to be lost counts as usable, or a backup would take over. */
const firstProbesMs = 3000

export class RoleSampler {
  readonly #options: RoleSamplerOptions
  readonly #volume: Volume | undefined
  #selection: Selection
  #totals = new Map<string, { received: number; sent: number }>()
  #rates = new Map<string, { receivedPerSecond: number; sentPerSecond: number }>()
  readonly #startedAt = performance.now()
  #lookedAt = performance.now()

  constructor(options: RoleSamplerOptions) {
    this.#options = options
    const { wans, log, volumeFile } = options
    this.#selection = initial(wans.map(({ name }) => name))
    if (wans.some(({ monthly_gb }) => monthly_gb !== undefined)) this.#volume = new Volume({ file: volumeFile, log })
  }

  get inUse(): ReadonlySet<string> {
    return this.#selection.inUse
  }

  /** What it is for now: one whose monthly volume is used up is a backup. */
  roleOf(wan: string): Role {
    const { role = 'normal', monthly_gb = Number.POSITIVE_INFINITY } = this.#options.wans.find(({ name }) => name === wan) ?? {}
    return (this.#volume?.used(wan) ?? 0) >= monthly_gb * 1e9 ? 'backup' : role
  }

  /** Bytes a second that a WAN has carried lately. */
  rate(wan: string): number {
    const { receivedPerSecond = 0, sentPerSecond = 0 } = this.#rates.get(wan) ?? {}
    return receivedPerSecond + sentPerSecond
  }

  /** To be called when a WAN's health changes. What is used is up to date when it returns. */
  update(): void {
    const { wans, health, log } = this.#options
    const isEarly = performance.now() - this.#startedAt < firstProbesMs
    const healths = wans.map(({ name }) => health(name))
    const isKnown = healths.some(({ usable }) => usable)
    const reports = wans.map(({ name, role }, index) => ({
      name,
      role,
      rttMs: healths[index]?.rttMs,
      usable: healths[index]?.usable === true || (isEarly && isKnown && healths[index]?.lost === false),
      ...(this.#rates.get(name) ?? { receivedPerSecond: 0, sentPerSecond: 0 }),
      volumeExhausted: role !== 'backup' && this.roleOf(name) === 'backup',
    }))
    this.#selection = select(this.#selection, reports, this.#lookedAt)
    for (const text of this.#selection.reasons.values()) log.info(text)
  }

  /** Runs until the signal. With one WAN there is nothing to choose. */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#options.wans.length < 2) return
    while (!signal.aborted) {
      this.#sample()
      const before = [...this.inUse].join()
      this.update()
      if ([...this.inUse].join() !== before) this.#options.onChange()
      await pause(tickMs, signal)
    }
    await this.#volume?.save()
  }

  #sample(): void {
    const wans = this.#options.wans.map(({ name }) => ({ name, interface: this.#options.deviceOf(name) }))
    const now = performance.now()
    const seconds = (now - this.#lookedAt) / 1000
    const counters = readCounters()
    this.#volume?.count(wans, counters, now)
    for (const { name, interface: device } of wans) {
      const { received, sent } = counters.get(device) ?? { received: 0, sent: 0 }
      const last = this.#totals.get(name)
      const rate = (total: number, then = total) => (seconds > 0 && total > then ? (total - then) / seconds : 0)
      this.#rates.set(name, { receivedPerSecond: rate(received, last?.received), sentPerSecond: rate(sent, last?.sent) })
      this.#totals.set(name, { received, sent })
    }
    this.#lookedAt = now
  }
}
