/** Passes of the network set-up: they make the machine what the target wants, and tell what they found. */
import type { Family } from '../../base/address.js'
import { aborted } from '../../base/pause.js'
import type { GatewayConfig } from '../../config/schema.js'
import { Reconciler } from '../../network/reconcile.js'
import type { NetworkOptions, NetworkPlan } from '../../network/state.js'
import type { Emit } from '../../telemetry/events.js'
import type { Pace } from '../pace.js'
import type { Steer } from './steer.js'
import { hasEndpoint } from './target.js'

/** The network set-up, as `Network` offers it. */
export interface NetworkControl {
  apply(config: GatewayConfig, options?: NetworkOptions): Promise<NetworkPlan>
  /** Deletes the MPTCP endpoints of these addresses at once, ahead of a full pass. */
  dropEndpoints(addresses: readonly string[]): Promise<void>
  /** Clears the kernel's memory of paths that swallow MPTCP; the setting stays. */
  forgetBlackHole(): Promise<void>
  remove(): Promise<unknown>
}

export interface PassesOptions {
  config: GatewayConfig
  network: Pick<NetworkControl, 'apply'>
  pace: Pace
  steer: Pick<Steer, 'target' | 'report' | 'passBegins' | 'passEnds'>
  /** The WANs that can be used have changed. */
  onWans(): void
  /** Routes have changed. */
  onRoutes(): void
  emit: Emit
}

export class Passes {
  readonly #options: PassesOptions
  #reconciler: Reconciler | undefined
  #redirects = false
  /** Whether the LAN is redirected, as last said. */
  #said: boolean | undefined
  #notes: readonly string[] = []
  readonly #redirected = new AbortController()
  readonly #ended = new AbortController()

  constructor(options: PassesOptions) {
    this.#options = options
  }

  /** What the last pass found: whether the LAN is redirected (undefined: it is not to be yet), and what else is to be said. */
  get found(): { redirects: boolean | undefined; notes: readonly string[] } {
    return { redirects: this.#redirects ? this.#said : undefined, notes: this.#notes }
  }

  /** A pass follows soon. `forced`: it reports the WANs even if they have not changed; these notes need not be logged again. */
  schedule(forced?: readonly string[]): void {
    if (forced === undefined) this.#reconciler?.schedule()
    else this.#reconciler?.forceReport(forced)
  }

  /** The same, and it looks at everything. */
  lookNow(): void {
    this.#reconciler?.lookNow()
  }

  /** Within some seconds a pass looks at everything. */
  lookSoon(): void {
    this.#reconciler?.lookSoon()
  }

  /** Settles when the LAN is redirected, if there is a WAN, or at the end. */
  async redirect(): Promise<void> {
    this.#redirects = true
    this.schedule()
    await Promise.race([aborted(this.#redirected.signal), aborted(this.#ended.signal)])
  }

  /** To be called after the end of `run`: new connections go around us, and everything else stays as it is. */
  async stopRedirecting(): Promise<void> {
    this.#redirects = false
    await this.#pass(false)
  }

  /** Until the signal: the machine follows the target. */
  async run(initial: Pick<NetworkPlan, 'wans' | 'notes'>, signal: AbortSignal): Promise<void> {
    const { emit, pace, steer, onWans } = this.#options
    this.#reconciler = new Reconciler({
      apply: (quick) => this.#pass(quick),
      isCalm: () => pace.isCalm,
      onWans(wans) {
        emit({ type: 'wan-list', wans })
        steer.report({ type: 'wans-planned', wans })
        onWans()
      },
      emit,
      initial,
    })
    try {
      await this.#reconciler.run(signal)
    } finally {
      this.#reconciler = undefined
      this.#ended.abort()
    }
  }

  async #pass(quick: boolean): Promise<NetworkPlan> {
    const { config, network, emit, steer, onRoutes } = this.#options
    const { hags, hagFamilies, best, remaking, isIpv6Carried } = steer.target
    const redirect = this.#redirects
    steer.passBegins()
    const plan = await network
      .apply(config, {
        quick,
        redirect,
        hags,
        hagFamilies,
        best,
        // Read what is known only when it is needed: a WAN may be lost meanwhile.
        withoutEndpoint: { has: (address) => !hasEndpoint(steer.target, address) },
        unserved: new Map<Family, string>(isIpv6Carried ? [] : [[6, noIpv6[config.on_hag_down]]]),
      })
      .catch((error) => {
        // It may have changed some.
        steer.passEnds({ areAdded: true, areDeleted: true })
        throw error
      })
    this.#notes = plan.notes
    const kinds = new Set(plan.steps.map(({ kind }) => kind))
    steer.passEnds({ areAdded: kinds.has('endpoint-added'), areDeleted: kinds.has('endpoint-deleted') })
    if (remaking !== undefined) steer.report({ type: 'endpoint-removed', bind: remaking })
    if (kinds.has('route-added') || kinds.has('route-deleted')) onRoutes()
    if (!redirect) return plan
    if (plan.redirects !== this.#said) emit({ type: plan.redirects ? 'lan-redirected' : 'lan-not-redirected' })
    this.#said = plan.redirects
    if (this.#redirected.signal.aborted) return plan
    this.#redirected.abort()
    return { ...plan, steps: [] }
  }
}

const noIpv6 = {
  direct: 'no HAG can reach IPv6 destinations: IPv6 is not redirected, and goes as it did before',
  reject: 'no HAG can reach IPv6 destinations: IPv6 connections are refused (on_hag_down)',
}
