/** Connects the gateway's parts with steer: they report facts, and ask what is known. None of them knows another. */
import { formatSocketAddress } from '../../base/address.js'
import type { GatewayConfig } from '../../config/schema.js'
import type { GatewayStatus } from '../../control/status.js'
import type { Engine } from '../../engine/contract.js'
import type { NetworkPlan } from '../../network/state.js'
import type { WatchEvents } from '../../network/watch.js'
import type { FirewallEvents } from '../../network/watch-firewall.js'
import { connectionOf, inspected, maxBusiest } from '../../service/status.js'
import { type Emit, lineOf } from '../../telemetry/events.js'
import type { Log } from '../../telemetry/log.js'
import { PathTable } from '../connections/path-table.js'
import { PreparedConnections } from '../connections/prepared.js'
import type { ConnectionFact } from '../facts.js'
import type { examine } from '../hags/capabilities.js'
import { HagDirectory, type HagEntryWithPassword } from '../hags/directory.js'
import type { FirstAnswer } from '../hags/first-answer.js'
import { type Carried, readCounters } from '../interface-counters.js'
import { isSameHag } from '../model.js'
import { Pace } from '../pace.js'
import { RoleSampler } from '../roles/sampler.js'
import { watchBlackHole } from '../wans/kernel-blackhole.js'
import { Bonding } from './bonding.js'
import { type NetworkControl, Passes } from './passes.js'
import { Probers } from './probers.js'
import { deviceOf } from './state.js'
import { bundleOf, hagsOf, wansOf } from './status.js'
import { Steer } from './steer.js'

export interface HubOptions {
  config: GatewayConfig
  entries: readonly HagEntryWithPassword[]
  engine: Pick<
    Engine,
    | 'probe'
    | 'inspect'
    | 'inspectBusy'
    | 'setKeepalive'
    | 'prepare'
    | 'keepPrepared'
    | 'connect'
    | 'useDevices'
    | 'abandon'
    | 'resetConnectionsTo'
    | 'resetStranded'
    | 'countOnly'
    | 'watchConnectionsTo'
    | 'stats'
  >
  network: NetworkControl
  emit: Emit
  log: Log
  /** Tests pass their own. */
  counters?: () => Map<string, Carried>
  examine?: typeof examine
}

type HubStatus = Omit<GatewayStatus, 'role' | 'service' | 'on_hag_down' | 'paths'>

export class Hub {
  readonly steer: Steer
  readonly pathTable: PathTable
  readonly prepared: PreparedConnections
  readonly #options: HubOptions
  readonly #directory: HagDirectory
  readonly #probers: Probers
  readonly #passes: Passes
  readonly #sampler: RoleSampler
  readonly #bonding: Bonding
  /** Why a WAN is not in use, as the log said it. */
  readonly #outOfUse = new Map<string, string>()
  readonly #pace: Pace

  constructor(options: HubOptions) {
    const { config, entries, engine, network, log, counters, examine } = options
    const emit: Emit = (event) => {
      if (event.type === 'wan-use') this.#outOfUse.set(event.wan, lineOf(event).text)
      options.emit(event)
    }
    this.#options = options
    const pace = new Pace(engine)
    this.#pace = pace
    this.pathTable = new PathTable({ onHagDown: config.on_hag_down })
    this.prepared = new PreparedConnections({
      engine,
      log,
      max: config.prepared_connections,
      paths: () => this.pathTable.preparable,
      report: (fact) => this.report(fact),
    })
    this.steer = new Steer({
      config: {
        wans: config.wans.map(({ name, interface: device, role, metered }, index) => {
          return { name, interface: device, role, metered: metered ?? index > 0 }
        }),
        onHagDown: config.on_hag_down,
      },
      engine,
      emit,
      log,
      dropEndpoints: (addresses) => network.dropEndpoints(addresses),
      reconcile: (forced) => this.#passes.schedule(forced),
      usePaths: (paths) => {
        this.pathTable.use(paths)
        this.prepared.tend()
      },
      onChange: (before, after) => this.#probers.wake(before, after),
    })
    this.#directory = new HagDirectory({ entries, emit, pace, sources: () => this.steer.state.wans })
    this.#probers = new Probers({ config, engine, pace, log, steer: this.steer, counters, examine })
    this.#passes = new Passes({
      config,
      network,
      emit,
      pace,
      steer: this.steer,
      onWans: () => this.#directory.refreshSoon(),
      onRoutes: () => this.#probers.checkFullSize(),
    })
    this.#sampler = new RoleSampler({
      wans: config.wans,
      deviceOf: (wan) => deviceOf(this.steer.state, wan),
      volumeFile: config.volume_file,
      pace,
      report: (fact) => this.steer.report(fact),
      emit,
      counters,
    })
    this.#bonding = new Bonding({ keepaliveSeconds: config.keepalive_seconds, engine, pace, emit, steer: this.steer })
  }

  /** Clients are active, after nobody was. */
  wake(): void {
    this.#pace.wake()
    this.#passes.lookSoon()
  }

  /** What a connection met. */
  report(fact: ConnectionFact): void {
    this.steer.report(fact)
    this.#probers.lookInto(fact)
  }

  /** What the HAGs say at the start. Until the LAN is redirected it goes as it did before. */
  firstAnswer(): Promise<FirstAnswer> {
    return this.#probers.firstAnswer(this.#directory, () => this.#reportHags())
  }

  /** What the parts know, for people. */
  async status(): Promise<
    Pick<GatewayStatus, 'is_lan_redirected' | 'notes' | 'wans' | 'hags' | 'bundle' | 'prepared' | 'busiest'>
  > {
    const { config, engine, counters = readCounters } = this.#options
    const { state, target } = this.steer
    const toHags = (await engine.inspectBusy(inspected)).filter(({ remote }) => target.hags.some((hag) => isSameHag(hag, remote)))
    const now = performance.now()
    const carried = counters()
    const wanOf = (address: string) => state.links.find((link) => link.address === address)?.wan
    const { redirects, notes } = this.#passes.found
    const status: HubStatus = {
      notes: [...notes],
      wans: wansOf(state, target, now),
      hags: hagsOf(state, target, now),
      bundle: bundleOf(toHags, target, this.#bonding.members),
      prepared: { kept: this.prepared.kept, limit: config.prepared_connections },
      busiest: toHags.slice(0, maxBusiest).map((one) => connectionOf(one, wanOf)),
    }
    if (redirects !== undefined) status.is_lan_redirected = redirects
    for (const wan of status.wans) {
      const why = this.#outOfUse.get(wan.name)
      if (!wan.is_in_use && why !== undefined) wan.why_not_in_use = why
      Object.assign(wan, this.#sampler.volumeOf(wan.name), totalsOf(carried.get(wan.interface)))
    }
    return status
  }

  /** Settles when the LAN is redirected, or at the end. */
  async redirect(): Promise<void> {
    await this.#probers.askAboutIpv6()
    await this.#passes.redirect()
  }

  /** To be called after the end of `run`: new connections go around us, and everything else stays as it is. */
  stopRedirecting(): Promise<void> {
    return this.#passes.stopRedirecting()
  }

  /**
   * Runs until the signal: the network set-up follows the machine, and traffic over a WAN follows its health. `fail` is called with an
   * unexpected error and aborts the signal: no part goes on without the others, and none after the network was put back.
   */
  async run(
    plan: Pick<NetworkPlan, 'wans' | 'notes'>,
    watch: (events: WatchEvents & FirewallEvents, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
    fail: (error: unknown) => void,
  ): Promise<void> {
    const { network, emit } = this.#options
    this.#reportHags()
    this.steer.report({ type: 'wans-planned', wans: plan.wans })
    const parts = [
      this.#passes.run(plan, signal),
      ...this.#probers.run(signal),
      this.#sampler.run(signal),
      ...this.#bonding.run(signal),
      this.prepared.run(signal),
      this.#directory.run(
        {
          onChange: () => {
            this.#reportHags()
            emit({ type: 'hag-list', hags: this.steer.target.hags.map(formatSocketAddress) })
          },
          isUrgent: () => this.steer.target.usableHags.length === 0,
        },
        signal,
      ),
      watchBlackHole({ forget: () => network.forgetBlackHole(), emit, pace: this.#pace }, signal),
      watch(
        {
          onChange: () => this.#passes.schedule(),
          onGone: (device, what) => this.steer.report({ type: 'link-gone', interface: device, what }),
          onAddressGone: (address) => this.steer.report({ type: 'address-gone', address }),
          onRulesGone: () => this.#passes.lookNow(),
          onRulesChanged: () => this.#passes.lookSoon(),
        },
        signal,
      ),
    ]
    await Promise.all(parts.map((part) => part.catch(fail)))
    this.steer.end()
  }

  #reportHags(): void {
    this.steer.report({ type: 'hags-changed', hags: this.#directory.hags })
  }
}

const totalsOf = (carried: Carried | undefined) =>
  carried === undefined ? {} : { received_bytes: carried.received, sent_bytes: carried.sent }
