/** Says which clients were refused: each address within a second, then once a minute while it goes on. Suitable for fail2ban. */

import { formatSocketAddress } from '../base/address.js'
import type { LimitTexts } from '../config/defaults.js'
import type { Engine, Refusal } from '../engine/contract.js'
import type { Emit } from '../telemetry/events.js'

/** How often to ask the engine who was refused, so that a flood does not keep us busy. */
const lookMs = 1000
const summaryMs = 60_000
/** Events in that time, so that a flood does not fill the disk. The clients with the most refusals get one. */
const maxLines = 10
/** All others are counted together. */
const maxRemembered = 1000

type Period = 'last-minute' | 'end'

export class Refusals {
  readonly #engine: Pick<Engine, 'takeRefusals'>
  readonly #limits: Pick<LimitTexts, 'perClient'>
  readonly #emit: Emit
  /** Runs for a moment after each look. */
  #pause: NodeJS.Timeout | undefined
  /** Runs while somebody is refused. */
  #minute: NodeJS.Timeout | undefined
  #hasMore = false
  /** Clients that were named in this minute, and how many more it may name. */
  #named = new Set<string>()
  #room = maxLines
  /** Refusals that wait for the end of the minute. */
  #waiting = new Map<string, Refusal>()

  constructor(engine: Pick<Engine, 'takeRefusals'>, limits: Pick<LimitTexts, 'perClient'>, emit: Emit) {
    this.#engine = engine
    this.#limits = limits
    this.#emit = emit
  }

  /** Handles the engine's event `refused`. */
  refused(): void {
    this.#hasMore = true
    if (this.#pause !== undefined) return
    this.#look()
    this.#pause = setTimeout(() => {
      this.#pause = undefined
      if (this.#hasMore) this.refused()
    }, lookMs).unref()
  }

  /** Says what is left. */
  close(): void {
    clearTimeout(this.#pause)
    clearTimeout(this.#minute)
    if (this.#minute === undefined) return
    this.#pause = undefined
    this.#minute = undefined
    if (this.#hasMore) this.#look()
    clearTimeout(this.#minute)
    this.#minute = undefined
    this.#summarize('end')
  }

  #look(): void {
    this.#hasMore = false
    this.#minute ??= setTimeout(() => this.#endMinute(), summaryMs).unref()
    for (const one of this.#engine.takeRefusals().sort(byCount)) {
      const key = keyOf(one)
      if (one.client !== undefined && this.#room > 0 && !this.#named.has(key)) {
        this.#room -= 1
        this.#named.add(key)
        this.#name(one)
      } else
        this.#keep(one.client === undefined || this.#waiting.size >= maxRemembered ? { cause: one.cause, count: one.count } : one)
    }
  }

  #keep(one: Refusal): void {
    const known = this.#waiting.get(keyOf(one))
    this.#waiting.set(keyOf(one), { ...one, ...known, count: one.count + (known?.count ?? 0) })
  }

  #endMinute(): void {
    this.#minute = undefined
    if (this.#hasMore) this.#look()
    clearTimeout(this.#minute)
    this.#named.clear()
    this.#room = maxLines
    this.#minute = this.#summarize('last-minute') ? setTimeout(() => this.#endMinute(), summaryMs).unref() : undefined
  }

  /** Returns whether anybody was refused. */
  #summarize(during: Period): boolean {
    const refusals = [...this.#waiting.values()].sort(byCount)
    this.#waiting.clear()
    const named = refusals.filter(({ client }) => client !== undefined).slice(0, maxLines)
    for (const one of named) {
      this.#named.add(keyOf(one))
      this.#name(one, during)
    }
    const count = refusals.filter((one) => !named.includes(one)).reduce((sum, one) => sum + one.count, 0)
    if (count > 0) this.#emit({ type: 'others-refused', count, during })
    return refusals.length > 0
  }

  #name({ cause, count, client = '', destination }: Refusal, during?: Period): void {
    const to = destination === undefined ? '' : formatSocketAddress(destination)
    this.#emit({ type: 'client-refused', client, cause, count, during, limit: this.#limits.perClient, destination: to })
  }
}

const byCount = (one: Refusal, other: Refusal) => other.count - one.count
const keyOf = ({ cause, client = '' }: Refusal) => `${cause} ${client}`
