/** The Hybrid Access Gateway: wires the engine and the HAG's decisions together. */

import { familyOf, formatSocketAddress, toNetwork } from '../base/address.js'
import { aborted } from '../base/pause.js'
import type { HagConfig } from '../config/schema.js'
import type { Commands, OpenControlOptions } from '../control/open.js'
import type { ControlSocket } from '../control/socket.js'
import type { HagStatus, ServiceStatus } from '../control/status.js'
import type { Engine, EngineEvent, Native, Protocol } from '../engine/contract.js'
import { drain } from '../service/drain.js'
import { listenError } from '../service/limits.js'
import { hasStarted } from '../service/memory.js'
import { openEngine, startProgram } from '../service/program.js'
import { watchOptions } from '../service/refused-options.js'
import type { StopSignals } from '../service/signals.js'
import { connectionOf, inspected, maxBusiest } from '../service/status.js'
import type { Emit } from '../telemetry/events.js'
import type { EventFeed } from '../telemetry/feed.js'
import type { Log } from '../telemetry/log.js'
import { Access } from './access.js'
import { Dialer, type DialOptions } from './dialer.js'
import { Homes } from './homes.js'
import { Names } from './names.js'
import { OwnAddresses } from './own-addresses.js'
import { Users } from './users.js'

/** Added to the longest lookup of a name, so that a busy machine does not reset connections. */
const decisionMarginSeconds = 30

export interface HagParts {
  native: Pick<Native, 'Engine' | 'mptcpUnavailable' | 'routeTo' | 'refusedOptions'>
  openControl(options: OpenControlOptions, commands: Commands): Promise<ControlSocket>
  events: EventFeed
  log: Log
  signals: Pick<StopSignals, 'stop' | 'hurry' | 'dispose'>
  /** Keeps the machine's network as a HAG needs it, until the signal. */
  keepNetwork(signal: AbortSignal): Promise<unknown>
}

async function realParts(config: HagConfig): Promise<HagParts> {
  const { keepNetwork, realKeepParts } = await import('./keep-network.js')
  const { openControl } = await import('../control/open.js')
  const { native, log, events, signals } = await startProgram(config)
  return {
    native,
    openControl,
    events,
    log,
    signals,
    keepNetwork: (signal) => keepNetwork(config, realKeepParts(config, events.emit), signal),
  }
}

/** Runs until a signal. Throws BondsocksError if it cannot run. */
export async function runHag(config: HagConfig, given?: HagParts): Promise<void> {
  const { native, openControl, events, log, signals, keepNetwork } = given ?? (await realParts(config))
  const { emit } = events
  try {
    const users = config.users_file === undefined ? undefined : new Users(config.users_file, emit)
    const own = new OwnAddresses(native.routeTo, emit)
    const engineOptions = {
      handshakeTimeoutMs: config.handshake_timeout_seconds * 1000,
      decisionTimeoutMs: (config.connect_timeout_seconds + decisionMarginSeconds) * 1000,
    }
    const homes = new Homes()
    const handle = (event: EngineEvent) => {
      homes.record(event)
      dialer.handle(event)
    }
    const { engine, limits, status, close } = openEngine({ native, config, engineOptions, log, events, handle })
    const options: DialOptions = {
      engine,
      access: new Access(config, (address, port) => own.has(address, port)),
      connectTimeoutMs: config.connect_timeout_seconds * 1000,
      log,
      // A lookup takes two descriptors, as a connection does. At least as many as for the connections are left for other uses.
      names: new Names({ emit, atOnce: Math.ceil(limits.maxConnections / 8) }),
    }
    if (users !== undefined) options.users = users
    const dialer = new Dialer(options)
    try {
      const authentication = users !== undefined
      const { protocol, addresses } = listen(engine, config, authentication, emit)
      emit({ type: 'hag-listens', addresses, port: config.listen.port, protocol, authentication })
      if (protocol === 'tcp') emit({ type: 'hag-without-mptcp', code: native.mptcpUnavailable() })
      const { port } = config.listen
      const listens = { addresses, port, protocol, authentication }
      const control = await openControl(
        { role: 'hag', name: `hag-${port}`, group: config.control_group, events },
        { status: () => statusOf(status(), engine, listens, homes) },
      )
      const ended = new AbortController()
      ended.signal.addEventListener('abort', () => control.close(), { once: true })
      const network = keepNetwork(ended.signal)
      hasStarted()
      await Promise.all([aborted(signals.stop), watchOptions(native, emit, signals.stop)])
      await drain(engine, config.drain_seconds, signals.hurry, emit)
      ended.abort()
      await network
      emit({ type: 'hag-stopped' })
    } finally {
      close()
    }
  } finally {
    signals.dispose()
  }
}

async function statusOf(service: ServiceStatus, engine: Engine, listens: HagStatus['listens'], homes: Homes): Promise<HagStatus> {
  const busiest = await engine.inspectBusy({ ...inspected, max: maxBusiest })
  return {
    role: 'hag',
    service,
    listens,
    homes: homes.read().map(({ sent, received, ...counts }) => ({ ...counts, sent_bytes: sent, received_bytes: received })),
    busiest: busiest.map((one) => connectionOf(one)),
  }
}

/** `::` is for both families, unless IPv4 addresses are listed beside it; then those count. */
function listen(engine: Engine, { listen, clients }: HagConfig, authentication: boolean, emit: Emit) {
  const { port } = listen
  const listed = [...new Set([listen.address].flat())]
  const implied = listed.includes('::') && !listed.some((one) => familyOf(one) === 4) ? ['0.0.0.0'] : []
  const addresses: string[] = []
  let protocol: Protocol = 'mptcp'
  for (const address of [...listed, ...implied]) {
    try {
      const how = { kind: 'socks', address, port, authentication, clients: clients.map(toNetwork) } as const
      protocol = engine.listen(how).protocol
      addresses.push(address)
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      const isMissing = address === '::' && (code === 'EAFNOSUPPORT' || code === 'EADDRNOTAVAIL')
      // Another HAG may have that port in the other family, from the time when each family needed a HAG of its own.
      if (!(implied.includes(address) && addresses.length > 0) && !(isMissing && implied.length > 0))
        throw listenError(address, port, cause)
      emit({ type: 'hag-listens-not', at: formatSocketAddress({ address, port }), code })
    }
  }
  return { protocol, addresses }
}
