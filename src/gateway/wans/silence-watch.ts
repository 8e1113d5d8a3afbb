/**
 * Finds out that a WAN has died while nothing flows over it, without probes: over a connection to a HAG the kernel asks every second whether the HAG's
 * machine still answers, and nobody is woken as long as it does. Not over metered WANs.
 */
import type { Family } from '../../base/address.js'
import { Alarm } from '../../base/alarm.js'
import { pause } from '../../base/pause.js'
import type { Engine, ProbeResult } from '../../engine/contract.js'
import { hagProbe } from '../../engine/probe.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { Hag, WanState } from '../model.js'

/** Shorter than a HAG waits for a request (120 s for ours). */
const watchMs = 60_000
/** If a HAG refuses, or ends such connections at once. */
const againMs = 1000

interface KnownLink {
  readonly family: Family
  readonly metered: boolean
  readonly address: string | undefined
  readonly health: { readonly state: WanState }
}

export interface SilenceWatchOptions<Link extends KnownLink> {
  engine: Pick<Engine, 'probe'>
  /** As known now, always in the same order. */
  links(): readonly Link[]
  /** The first one is watched. */
  hags(family: Family): readonly Hag[]
  /** How long a probe waits, milliseconds. */
  timeoutMs(link: Link): number
  /** The HAG's machine does not answer any more over this link. */
  onSilent(index: number): void
  /** It has ended the connection, or there was none. */
  onEnded(index: number): void
  log: Pick<Log, 'error'>
}

export class SilenceWatch<Link extends KnownLink = KnownLink> {
  readonly #options: SilenceWatchOptions<Link>
  readonly #alarms: readonly Alarm[]

  constructor(options: SilenceWatchOptions<Link>) {
    this.#options = options
    this.#alarms = options.links().map(() => new Alarm())
  }

  /** To be called when links have changed. */
  look(): void {
    for (const alarm of this.#alarms) alarm.ring()
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#alarms.map((alarm, index) => this.#follow(index, alarm, signal)))
  }

  async #follow(index: number, alarm: Alarm, signal: AbortSignal): Promise<void> {
    const { links, hags, onSilent, onEnded } = this.#options
    while (!signal.aborted) {
      const link = links()[index] as Link
      const { address: bind, family, metered, health } = link
      const [hag] = hags(family)
      if (metered || bind === undefined || health.state !== 'up' || hag === undefined) {
        await alarm.wait(Number.POSITIVE_INFINITY, signal)
        continue
      }
      const result = await this.#watch(hag, bind, this.#options.timeoutMs(link), signal)
      if (signal.aborted || result === undefined || result.ok) continue
      if (result.stage === 'watch' && result.failure.code === 'ETIMEDOUT') onSilent(index)
      else onEnded(index)
      await pause(againMs, signal)
    }
  }

  /** undefined at the signal: the engine may never answer then. */
  async #watch(hag: Hag, bind: string, timeoutMs: number, signal: AbortSignal): Promise<ProbeResult | undefined> {
    const ended = new Alarm()
    let result: ProbeResult | undefined
    const probe = { ...hagProbe({ hag, bind }, { protocol: 'tcp', connectTimeoutMs: timeoutMs, timeoutMs }), watchMs }
    const watched = this.#options.engine.probe(probe).then((one) => {
      result = one
      ended.ring()
    })
    inBackground(this.#options.log, watched)
    await ended.wait(Number.POSITIVE_INFINITY, signal)
    return result
  }
}
