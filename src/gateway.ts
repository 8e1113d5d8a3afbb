/** The gateway: wires the engine, the network set-up and the sessions together, and takes them apart again. */
import { engineLimits } from './config/defaults.js'
import type { GatewayConfig } from './config/schema.js'
import { readPassword } from './config/secrets.js'
import type { Engine, EngineEvent, Native } from './native/index.js'
import type { NetworkOptions } from './network/network.js'
import { Reconciler } from './network/reconcile.js'
import type { Plan, WanAddresses } from './network/state.js'
import type { WatchEvents } from './network/watch.js'
import { Bypass, type Hag, hagPaths } from './redirect/policy.js'
import { Sessions } from './redirect/session.js'
import { Upstreams } from './redirect/upstreams.js'
import { BondsocksError } from './shared/errors.js'
import { OwnAddresses } from './shared/own-addresses.js'
import { aborted, drain, logLimit, StopSignals } from './shared/service.js'
import { createLog, type Log } from './telemetry/log.js'
import { WanMonitor } from './wan/monitor.js'

/** What the gateway needs of the machine; tests pass their own. */
export interface GatewayParts {
  native: Pick<Native, 'Engine' | 'mptcpUnavailable'>
  network: {
    apply(config: GatewayConfig, options?: NetworkOptions): Promise<Plan>
    dropEndpoints(addresses: readonly string[]): Promise<void>
    remove(): Promise<unknown>
  }
  /** Calls back when the kernel's links, addresses, routes or rules have changed, until the signal. */
  watch(events: WatchEvents, signal: AbortSignal): Promise<void>
  log: Log
  signals: Pick<StopSignals, 'stop' | 'hurry' | 'dispose'>
  isOwn(address: string): boolean
}

async function realParts(config: GatewayConfig): Promise<GatewayParts> {
  const { native } = await import('./native/index.js')
  const { Network, systemKernel } = await import('./network/network.js')
  const { watchKernel } = await import('./network/watch.js')
  const own = new OwnAddresses()
  const log = createLog(config.log_level)
  return {
    native,
    network: new Network(systemKernel()),
    watch: (events, signal) => watchKernel({ ...events, log }, signal),
    log,
    signals: new StopSignals(),
    isOwn: (address) => own.has(address),
  }
}

/** Runs until a signal; resolves when all is taken away. Throws BondsocksError, with the network as before, where it cannot run. */
export async function runGateway(config: GatewayConfig, given?: GatewayParts): Promise<void> {
  const parts = given ?? (await realParts(config))
  const { native, network, log, signals } = parts
  try {
    requireMptcp(native.mptcpUnavailable())
    const hags = readHags(config, log)
    // The sessions need the WANs' addresses, which are known only once the network is set up; nobody connects before that.
    let sessions: Sessions | undefined
    const engine = new native.Engine({
      ...engineLimits(config),
      idleTimeoutMs: config.idle_timeout_seconds * 1000,
      handshakeTimeoutMs: 10_000,
      onEvents: (events) => {
        for (const event of events) {
          if (event.type === 'limit') logLimit(event, log)
          else if (sessions !== undefined) sessions.handle(event)
          else turnAway(engine, event)
        }
      },
    })
    try {
      listen(engine, config.listen.port, log)
      if (signals.stop.aborted) return
      // Where this fails it has changed nothing, or rolled back: what was there before us stays.
      const { wans, notes } = await network.apply(config)
      try {
        for (const note of notes) log.warn(note)
        log.info('network is set up', { wans })
        const connectTimeoutMs = config.connect_timeout_seconds * 1000
        const upstreams = new Upstreams({ hags, wans, onHagDown: config.on_hag_down, connectTimeoutMs, log })
        sessions = new Sessions({
          engine,
          upstreams,
          bypass: new Bypass(config),
          isOwn: parts.isOwn,
          connectTimeoutMs,
          log,
        })
        await Promise.race([upstreams.probe(engine), aborted(signals.stop)])
        requireHag(upstreams, config, log)
        log.info('gateway runs')
        await keepUp(config, parts, { engine, hags, upstreams, wans, notes })
        // New connections go around us first, so that none meets a closed port.
        await network
          .apply(config, { redirect: false, tolerant: true })
          .catch((error: Error) => log.warn(`the redirection stays until the end: ${error.message}`))
        engine.stopListening()
        log.info('stopping: connections may end', { seconds: config.drain_seconds, connections: engine.stats().connections })
        const left = await drain(engine, config.drain_seconds, signals.hurry)
        if (left > 0) log.warn(`${left} connections aborted`)
      } finally {
        await network.remove()
      }
      log.info('network is as before')
    } finally {
      engine.close()
    }
  } finally {
    signals.dispose()
  }
}

interface Running extends Pick<Plan, 'wans' | 'notes'> {
  engine: Engine
  hags: readonly Hag[]
  upstreams: Upstreams
}

/** Until the signal to stop: the network set-up follows the machine, and what is sent over a WAN follows its health. */
async function keepUp(config: GatewayConfig, parts: GatewayParts, running: Running): Promise<void> {
  const { network, log, signals } = parts
  const { engine, hags, upstreams, notes } = running
  let { wans } = running
  const addressesOf = (isMeant: (wan: WanAddresses) => boolean) =>
    wans.filter(isMeant).flatMap(({ address4, address6 }) => [address4, address6].filter((one) => one !== undefined))
  const monitor = new WanMonitor({
    ...{ engine, log },
    wans: config.wans.map(({ name, metered }, index) => ({ name, metered: metered ?? index > 0 })),
    targets: (line) => hagPaths(hags, [line]),
    onChange: (lost) => {
      upstreams.useWans(monitor.inOrder(wans))
      if (lost) reconciler.poke()
    },
  })
  const reconciler = new Reconciler({
    apply: (quick) =>
      network.apply(config, {
        ...{ quick, tolerant: true },
        withoutEndpoint: new Set(addressesOf(({ name }) => monitor.lost.has(name))),
      }),
    onWans: (now) => {
      log.info('WANs changed', { wans: now })
      wans = [...now]
      // A lost WAN with another address: the pass that found it gave it an endpoint.
      if (monitor.lost.size > 0) reconciler.poke()
      upstreams.useWans(monitor.inOrder(wans))
      monitor.useLines(wans)
    },
    ...{ log, initial: { wans, notes } },
  })
  monitor.useLines(wans)
  // At once, before the pass that follows: what is sent over the WAN meanwhile is lost.
  const drop = (addresses: string[]) => {
    network.dropEndpoints(addresses).catch((error: Error) => log.warn(`an endpoint could not be deleted: ${error.message}`))
  }
  const events: WatchEvents = {
    onChange: () => reconciler.poke(),
    onGone: (device) => drop(addressesOf((wan) => wan.interface === device)),
    onAddressGone: (address) => drop([address]),
  }
  const watching = parts.watch(events, signals.stop)
  await Promise.all([reconciler.run(signals.stop), monitor.run(signals.stop), watching])
}

function requireMptcp(why: string | undefined): void {
  // With net.mptcp.enabled=0 the network set-up turns it on.
  if (why === undefined || why === 'ENOPROTOOPT') return
  throw new BondsocksError(
    'NO_MPTCP',
    `this kernel has no MPTCP (${why}): use Linux 5.6 or later with CONFIG_MPTCP; 5.15 or later is better`,
  )
}

function readHags(config: GatewayConfig, log: Log): Hag[] {
  return config.hags.map(({ address, port, username, password_file }) => {
    if (username === undefined || password_file === undefined) return { address, port }
    return { address, port, username, password: readPassword(password_file, (message) => log.warn(message)) }
  })
}

function listen(engine: Engine, port: number, log: Log): void {
  try {
    engine.listen({ kind: 'redirect', address: '0.0.0.0', port })
  } catch (cause) {
    throw listenError('0.0.0.0', port, cause)
  }
  try {
    engine.listen({ kind: 'redirect', address: '::', port })
    log.info('listening', { port })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw listenError('::', port, cause)
    log.info('listening, without IPv6: this machine has none', { port })
  }
}

/** What a failed `listen` means to the person who wrote the config. */
export function listenError(address: string, port: number, cause: unknown): BondsocksError {
  const { code = String(cause) } = cause as NodeJS.ErrnoException
  const what =
    {
      EADDRINUSE: `port ${port} is taken by another program: \`ss -ltnp 'sport = :${port}'\` shows it; stop it, or choose another listen.port`,
      EACCES: `port ${port} is not allowed: run as root, or choose a listen.port above 1023`,
      EADDRNOTAVAIL: `${address} is no address of this machine: choose another listen.address`,
    }[code] ?? `cannot listen on ${address} port ${port}: ${code}`
  return new BondsocksError('LISTEN', what, { cause })
}

/** Before the network is set up only a stray client arrives, and it gets a RST. */
function turnAway(engine: Engine, event: EngineEvent): void {
  if (event.type === 'accepted') engine.reset(event.connection)
}

function requireHag(upstreams: Upstreams, config: GatewayConfig, log: Log): void {
  const { state, reasons } = upstreams.summary()
  if (state === 'some') return
  if (state === 'refused')
    throw new BondsocksError('HAG_CREDENTIALS', `no HAG takes our credentials: ${reasons}`, { exitCode: 2 })
  if (config.on_hag_down === 'reject')
    throw new BondsocksError('HAG_UNREACHABLE', `no HAG can be reached: ${reasons}`, { retryable: true })
  log.warn('no HAG can be reached: connections go direct, without bonding')
}
