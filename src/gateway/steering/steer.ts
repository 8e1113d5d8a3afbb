/** Takes facts, and carries out the difference between the target before and after each. */

import { families, formatSocketAddress } from '../../base/address.js'
import { joinsByOwnDevice } from '../../base/kernel-version.js'
import { pause } from '../../base/pause.js'
import type { Engine } from '../../engine/contract.js'
import { downNote, type WanAddresses } from '../../network/state.js'
import { inBackground } from '../../service/faults.js'
import type { Emit } from '../../telemetry/events.js'
import type { Log } from '../../telemetry/log.js'
import type { Fact } from '../facts.js'
import type { Hag, Paths } from '../model.js'
import { type Deed, deeds, type Situation, strandedMs } from './deeds.js'
import { events } from './events.js'
import { firstState, reduce, type State, type SteeringConfig } from './state.js'
import { type Target, target } from './target.js'

export interface SteerOptions {
  config: SteeringConfig
  engine: Pick<Engine, 'useDevices' | 'abandon' | 'resetConnectionsTo' | 'resetStranded' | 'watchConnectionsTo'>
  /** Deletes the MPTCP endpoints of these addresses at once, ahead of a pass. */
  dropEndpoints(addresses: readonly string[]): Promise<void>
  /**
   * A pass of the network set-up follows. `forced`: it reports the WANs even if they have not changed; these notes need not be logged
   * again.
   */
  reconcile(forced?: readonly string[]): void
  /** New connections take these paths. */
  usePaths(paths: Paths): void
  /** After each fact that changed something; the probers wait for some changes. */
  onChange(before: State, after: State): void
  emit: Emit
  log: Log
}

/** How often to look again for connections without a subflow. */
const lookMs = 500
/** How often to look whether a pass has ended. */
const passMs = 100
/** How long a look waits for joins at most. */
const maxHoldMs = 5000

export class Steer {
  readonly #options: SteerOptions
  readonly #ended = new AbortController()
  #situation: Situation
  #isPassUnderWay = false
  /** Until then a connection without a subflow may be about to get one. */
  #strandedFrom = Number.NEGATIVE_INFINITY

  constructor(options: SteerOptions) {
    this.#options = options
    const state = firstState(options.config, performance.now())
    this.#situation = { state, target: target(state, undefined) }
  }

  get state(): State {
    return this.#situation.state
  }

  get target(): Target {
    return this.#situation.target
  }

  report(fact: Fact): void {
    const { emit, onChange } = this.#options
    const before = this.#situation
    const state = reduce(before.state, fact, performance.now())
    if (state === before.state) return
    const after = { state, target: target(state, before.target) }
    this.#situation = after
    for (const event of events(before.state, state, fact)) emit(event)
    const left = before.state.wans.filter((wan) => !state.wans.includes(wan))
    for (const deed of deeds(before, after)) this.#do(deed, left)
    onChange(before.state, state)
  }

  /** From now on nothing more is done. */
  end(): void {
    this.#ended.abort()
  }

  /** A pass begins, and may delete endpoints: connections lose subflows before others have joined them. */
  passBegins(): void {
    this.#isPassUnderWay = true
  }

  /**
   * It has ended. Connections that had no other subflow than those of deleted endpoints are stranded, unless a subflow from an endpoint that was
   * added joins them.
   */
  passEnds(endpoints: { areAdded: boolean; areDeleted: boolean }): void {
    this.#isPassUnderWay = false
    if (endpoints.areAdded || endpoints.areDeleted) this.#waitForJoins()
    if (endpoints.areDeleted) this.#background(this.#resetStranded(strandedMs, 1))
  }

  #do(deed: Deed, left: readonly WanAddresses[]): void {
    const { engine, reconcile, usePaths } = this.#options
    switch (deed.type) {
      case 'use-wans':
        engine.useDevices(devicesOf(deed.wans), joinsByOwnDevice())
        break
      case 'use-paths':
        usePaths(this.target.paths)
        break
      case 'abandon':
        engine.abandon(deed.address)
        break
      case 'drop-endpoints':
        this.#background(this.#dropEndpoints(deed))
        break
      case 'look-for-stranded':
        this.#background(this.#resetStranded(deed.firstMs, deed.looks))
        break
      case 'reset-connections':
        this.#background(this.#resetConnections(deed.hag))
        break
      case 'wake-connections':
        this.#background(this.#wakeConnections(deed.hag, deed.firstMs, deed.looks))
        break
      case 'reconcile':
        reconcile(deed.isForced ? left.map((wan) => this.#remarkOn(wan)) : undefined)
    }
  }

  /** The note that the pass will have. */
  #remarkOn({ name }: WanAddresses): string {
    const link = this.state.links.find(({ wan, address }) => wan === name && address === undefined)
    return downNote(name, link?.health.reason)
  }

  async #dropEndpoints({ addresses, afterMs, reconciles }: Extract<Deed, { type: 'drop-endpoints' }>): Promise<void> {
    const { dropEndpoints, emit, reconcile } = this.#options
    if (afterMs > 0) await pause(afterMs, this.#ended.signal)
    if (this.#ended.signal.aborted) return
    this.#waitForJoins()
    await dropEndpoints(addresses).catch(({ message }: Error) => emit({ type: 'endpoint-not-deleted', reason: message }))
    if (reconciles) reconcile()
  }

  async #resetConnections(hag: Hag): Promise<void> {
    const { engine, emit } = this.#options
    const count = await engine.resetConnectionsTo(hag)
    if (count > 0) emit({ type: 'connections-reset', count, hag: formatSocketAddress(hag) })
  }

  async #wakeConnections(hag: Hag, firstMs: number, looks: number): Promise<void> {
    const { engine } = this.#options
    engine.watchConnectionsTo(hag, true)
    await this.#resetStranded(firstMs, looks)
    if (!this.#ended.signal.aborted) engine.watchConnectionsTo(hag, false)
  }

  async #resetStranded(firstMs: number, looks: number): Promise<void> {
    const { engine, emit } = this.#options
    for (let look = 0; look < looks; look++) {
      await pause(look === 0 ? firstMs : lookMs, this.#ended.signal)
      await this.#joinsTried()
      if (this.#ended.signal.aborted) return
      const count = await engine.resetStranded()
      if (count > 0) emit({ type: 'connections-reset', count })
    }
  }

  /** Another WAN may have been lost meanwhile, or a pass may be under way. While a link flaps that has no end. */
  async #joinsTried(): Promise<void> {
    const untilAt = performance.now() + maxHoldMs
    for (;;) {
      const now = performance.now()
      const waitMs = Math.min(this.#isPassUnderWay ? passMs : this.#strandedFrom - now, untilAt - now)
      if (waitMs <= 0 || this.#ended.signal.aborted) return
      await pause(waitMs, this.#ended.signal)
    }
  }

  #waitForJoins(): void {
    this.#strandedFrom = Math.max(this.#strandedFrom, performance.now() + strandedMs)
  }

  #background(work: Promise<void>): void {
    inBackground(this.#options.log, work)
  }
}

const devicesOf = (wans: readonly WanAddresses[]) =>
  wans.flatMap((wan) =>
    families.flatMap((family) => {
      const address = wan[`address${family}`]
      return address === undefined ? [] : [{ address, device: wan.interface }]
    }),
  )
