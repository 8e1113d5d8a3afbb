/** The gateway: starts the engine, the network set-up and the sessions, connects them, and stops them again. */

import { BondsocksError } from '../base/errors.js'
import { mptcpKernel } from '../base/kernel-version.js'
import { aborted } from '../base/pause.js'
import type { GatewayConfig } from '../config/schema.js'
import { readPassword } from '../config/secrets.js'
import type { Commands, OpenControlOptions } from '../control/open.js'
import type { ControlSocket } from '../control/socket.js'
import type { GatewayStatus, ServiceStatus } from '../control/status.js'
import type { Engine, EngineEvent, Native } from '../engine/contract.js'
import type { Guardian } from '../network/guardian.js'
import type { NetworkPlan } from '../network/state.js'
import type { WatchEvents } from '../network/watch.js'
import type { FirewallEvents } from '../network/watch-firewall.js'
import { drain } from '../service/drain.js'
import { listenError } from '../service/limits.js'
import { hasStarted } from '../service/memory.js'
import { type OpenOptions, openEngine, startProgram } from '../service/program.js'
import { watchOptions } from '../service/refused-options.js'
import type { StopSignals } from '../service/signals.js'
import type { Emit } from '../telemetry/events.js'
import type { EventFeed } from '../telemetry/feed.js'
import type { Log } from '../telemetry/log.js'
import { Bypass } from './connections/policy.js'
import { Sessions } from './connections/session.js'
import type { HagEntryWithPassword } from './hags/directory.js'
import { Hub } from './steering/hub.js'
import type { NetworkControl } from './steering/passes.js'

/** What the gateway needs from the machine; tests pass their own. */
export interface GatewayParts {
  native: Pick<Native, 'Engine' | 'mptcpUnavailable' | 'refusedOptions'>
  network: NetworkControl
  /** Starts the guardian, which removes the network set-up if this process does not. */
  guard(): Promise<Guardian>
  /** Calls back when the kernel's links, addresses, routes or rules have changed, or what is ours in the firewall is gone, until the signal. */
  watch(events: WatchEvents & FirewallEvents, signal: AbortSignal): Promise<void>
  openControl(options: OpenControlOptions, commands: Commands): Promise<ControlSocket>
  events: EventFeed
  log: Log
  signals: Pick<StopSignals, 'stop' | 'hurry' | 'fail' | 'dispose'>
}

async function realParts(config: GatewayConfig): Promise<GatewayParts> {
  const { Network, systemKernel } = await import('../network/network.js')
  const { guardGateway } = await import('../network/guardian.js')
  const { watchKernel } = await import('../network/watch.js')
  const { watchFirewall } = await import('../network/watch-firewall.js')
  const { watchLeases } = await import('../network/kernel/leases.js')
  const { openControl } = await import('../control/open.js')
  const { native, log, events, signals } = await startProgram(config)
  const { emit } = events
  return {
    native,
    network: new Network(systemKernel({ standby: true })),
    guard: () => guardGateway(emit),
    watch: async (callbacks, signal) => {
      const leases = watchLeases(() => callbacks.onChange(), signal)
      await Promise.all([watchKernel({ ...callbacks, emit }, signal), watchFirewall(callbacks, signal), leases])
    },
    openControl,
    events,
    log,
    signals,
  }
}

/** Runs until a signal; resolves when everything is removed. Throws BondsocksError, with the network as before, if it cannot run. */
export async function runGateway(config: GatewayConfig, given?: GatewayParts): Promise<void> {
  const parts = given ?? (await realParts(config))
  const { native, network, events, log, signals } = parts
  const { emit } = events
  try {
    requireMptcp(native.mptcpUnavailable())
    const entries = readPasswords(config, emit)
    // Nobody is redirected to us before the network is set up.
    let sessions: Sessions | undefined
    const engineOptions: OpenOptions['engineOptions'] = { handshakeTimeoutMs: 10_000 }
    if (config.mark !== undefined) engineOptions.mark = config.mark
    const handle = (event: EngineEvent): void => (sessions === undefined ? turnAway(engine, event) : sessions.handle(event))
    const { engine, status, close } = openEngine({ native, config, engineOptions, log, events, handle })
    try {
      const hasIpv6 = listen(engine, config.listen.port)
      if (signals.stop.aborted) return
      const guardian = await parts.guard()
      // If this fails, it has changed nothing or rolled back, so everything is as before.
      const plan = await setUp(network, config, emit).catch(async (error) => {
        await guardian.dismiss()
        throw error
      })
      emit({ type: 'gateway-listens', port: config.listen.port, hasIpv6 })
      const over = new AbortController()
      try {
        const hub = new Hub({ config, entries, engine, network, emit, log })
        sessions = new Sessions({
          engine,
          pathTable: hub.pathTable,
          prepared: hub.prepared,
          bypass: new Bypass(config),
          connectTimeoutMs: config.connect_timeout_seconds * 1000,
          report: (fact) => hub.report(fact),
          onActive: () => hub.wake(),
          log,
        })
        const control = await parts.openControl(
          { role: 'gateway', name: 'gateway', group: config.control_group, events },
          { status: () => statusOf(status(), config, hub, sessions) },
        )
        over.signal.addEventListener('abort', () => control.close(), { once: true })
        const stop = AbortSignal.any([signals.stop, over.signal])
        const running = Promise.all([hub.run(plan, parts.watch, stop, signals.fail), watchOptions(native, emit, stop)])
        try {
          await begin(hub, config, emit, stop)
        } catch (error) {
          over.abort()
          await running
          throw error
        }
        await running
        // First, new connections are no longer redirected, so that none meets a closed port.
        await hub.stopRedirecting().catch(({ message }: Error) => emit({ type: 'redirection-stays', reason: message }))
        await drain(engine, config.drain_seconds, signals.hurry, emit)
      } finally {
        over.abort()
        await network.remove()
        // Not if that failed: then the guardian tries again.
        await guardian.dismiss()
      }
      emit({ type: 'network-restored' })
    } finally {
      close()
    }
  } finally {
    signals.dispose()
  }
}

async function statusOf(
  service: ServiceStatus,
  config: GatewayConfig,
  hub: Hub,
  sessions: Sessions | undefined,
): Promise<GatewayStatus> {
  const paths = sessions?.countsByPath() ?? []
  return {
    role: 'gateway',
    service,
    on_hag_down: config.on_hag_down,
    ...(await hub.status()),
    paths: paths.map(({ sent, received, ...counts }) => ({ ...counts, sent_bytes: sent, received_bytes: received })),
  }
}

function requireMptcp(why: string | undefined): void {
  // With net.mptcp.enabled=0 the network set-up turns it on.
  if (why === undefined || why === 'ENOPROTOOPT') return
  throw new BondsocksError('NO_MPTCP', `this kernel has no MPTCP (${why}): use ${mptcpKernel}`)
}

function readPasswords(config: GatewayConfig, emit: Emit): HagEntryWithPassword[] {
  return config.hags.map((entry) => {
    if (entry.password_file === undefined) return entry
    return { ...entry, password: readPassword(entry.password_file, emit) }
  })
}

/** Returns whether IPv6 is listened to as well. */
function listen(engine: Engine, port: number): boolean {
  try {
    engine.listen({ kind: 'redirect', address: '0.0.0.0', port, refuseLoops: true })
  } catch (cause) {
    throw listenError('0.0.0.0', port, cause)
  }
  try {
    engine.listen({ kind: 'redirect', address: '::', port, refuseLoops: true })
    return true
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw listenError('::', port, cause)
    return false
  }
}

/** Before the network is set up only a stray client arrives, and it gets a RST. */
function turnAway(engine: Engine, event: EngineEvent): void {
  if (event.type === 'accepted') engine.reset(event.connection)
}

/** Errors that a change in between may cause. All others have to be mended by a person. */
const passing = new Set(['COMMAND_FAILED', 'SYSCTL_FAILED', 'LOCKED'])

/** With the WANs that are there. Nobody is redirected before it is known where to. */
async function setUp(network: NetworkControl, config: GatewayConfig, emit: Emit): Promise<Pick<NetworkPlan, 'wans' | 'notes'>> {
  try {
    const plan = await network.apply(config, { redirect: false })
    for (const note of plan.notes) emit({ type: 'network-note', note })
    emit({ type: 'network-set-up', wans: plan.wans })
    return plan
  } catch (error) {
    if (!(error instanceof BondsocksError && passing.has(error.code))) throw error
    emit({ type: 'network-failed', reason: error.message, isAtStart: true })
    return { wans: [], notes: [] }
  }
}

async function begin(hub: Hub, config: GatewayConfig, emit: Emit, signal: AbortSignal): Promise<void> {
  const found = await Promise.race([hub.firstAnswer(), aborted(signal)])
  if (found === undefined) return
  const { state, reasons } = found
  if (state === 'refused')
    throw new BondsocksError('HAG_CREDENTIALS', `no HAG takes our credentials: ${reasons}`, { exitCode: 2 })
  if (state === 'none') emit({ type: 'no-hag', reasons, onHagDown: config.on_hag_down })
  await hub.redirect()
  if (signal.aborted) return
  emit({ type: 'gateway-runs' })
  hasStarted()
}
