/** One redirected connection, from accepted to closed, in the order in which it meets the steps. */
import type { ConnectionId, Engine, EngineEvent, Way } from '../native/index.js'
import { formatSocketAddress, type SocketAddress } from '../shared/address.js'
import { Attempts, type Outcome } from '../shared/attempts.js'
import type { Log } from '../telemetry/log.js'
import { type Bypass, type Path, type Refusal, refusal } from './policy.js'
import type { Upstreams } from './upstreams.js'

type Accepted = Extract<EngineEvent, { type: 'accepted' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>

/** More than a HAG takes to give up on a dead server (10 s here), so that its answer arrives. */
const requestTimeoutMs = 15_000

/** A SYN is sent again after 1 s (RFC 6298 section 2.1): where there is another way, that is the better use of the time. */
const impatientMs = 1000

export interface SessionOptions {
  engine: Engine
  upstreams: Upstreams
  bypass: Bypass
  isOwn(address: string): boolean
  connectTimeoutMs: number
  log: Log
}

export class Sessions {
  readonly #options: SessionOptions
  readonly #attempts: Attempts
  readonly #refusalsLogged = new Set<Refusal['cause']>()
  /** What the debug line of a closed connection says beyond the event; stays empty unless debugging. */
  readonly #relaying = new Map<ConnectionId, { destination: string; via: string }>()

  constructor(options: SessionOptions) {
    this.#options = options
    this.#attempts = new Attempts(options.engine)
  }

  handle(event: EngineEvent): void {
    if (event.type === 'accepted') {
      this.#attempts.begin(event.connection)
      this.#serve(event)
        .catch((error: Error) => {
          this.#options.log.error(`unexpected error in a session: ${error.message}`, { stack: error.stack })
          this.#options.engine.reset(event.connection)
        })
        .finally(() => this.#attempts.end(event.connection))
    } else if (event.type === 'opened' || event.type === 'failed' || event.type === 'closed') {
      this.#attempts.settle(event)
      if (event.type === 'closed' && this.#options.log.debugging) this.#logClosed(event)
    }
  }

  async #serve(accepted: Accepted): Promise<void> {
    const { engine, upstreams, bypass, isOwn, connectTimeoutMs } = this.#options
    const { connection, destination } = accepted

    const refused = refusal(accepted, isOwn)
    if (refused !== undefined) {
      this.#complain(refused)
      return engine.reset(connection)
    }

    const ways = bypass.has(destination.address) ? upstreams.direct(destination.address) : upstreams.ways(destination.address)
    for (const [index, path] of ways.entries()) {
      upstreams.trying(path)
      const patienceMs = index + 1 < ways.length ? Math.min(connectTimeoutMs, impatientMs) : connectTimeoutMs
      const outcome = await this.#attempts.open(connection, this.#way(path, destination, patienceMs))
      upstreams.saw(path, outcome)
      if (outcome.type === 'closed') return
      if (outcome.type === 'opened') return this.#opened(connection, destination, path)
      if (isAboutDestination(path, outcome)) break
    }
    engine.reset(connection)
  }

  #way({ hag, bind }: Path, { address, port }: SocketAddress, connectTimeoutMs: number): Way {
    if (hag === undefined) return { protocol: 'tcp', remote: { address, port }, bind, connectTimeoutMs }
    const socks: NonNullable<Way['socks']> = { host: address, port, handshake: 'sequential', timeoutMs: requestTimeoutMs }
    if (hag.username !== undefined) socks.username = hag.username
    if (hag.password !== undefined) socks.password = hag.password
    return { protocol: 'mptcp', remote: { address: hag.address, port: hag.port }, bind, connectTimeoutMs, socks }
  }

  #opened(connection: ConnectionId, destination: SocketAddress, { hag, wan }: Path): void {
    if (!this.#options.log.debugging) return
    const via = hag === undefined ? `direct over ${wan.name}` : `HAG ${formatSocketAddress(hag)} over ${wan.name}`
    this.#relaying.set(connection, { destination: formatSocketAddress(destination), via })
  }

  #complain({ cause, message }: Refusal): void {
    if (this.#refusalsLogged.has(cause)) return
    this.#refusalsLogged.add(cause)
    this.#options.log.warn(message, { cause })
  }

  #logClosed({ connection, client, reason, failure, sent, received, durationMs }: Closed): void {
    const more = this.#relaying.get(connection)
    this.#relaying.delete(connection)
    this.#options.log.debug('connection closed', {
      client: formatSocketAddress(client),
      ...more,
      reason,
      ...(failure === undefined ? {} : { code: failure.code }),
      sent,
      received,
      durationMs,
    })
  }
}

/**
 * True where another way would give the same answer: a HAG reached the destination's network and says what it found (RFC 1928
 * section 6: 3 network unreachable, 4 host unreachable, 5 refused, 6 TTL expired), or the destination itself refused us.
 */
function isAboutDestination({ hag }: Path, outcome: Outcome): boolean {
  if (outcome.type !== 'failed') return false
  if (hag === undefined) return outcome.failure.code === 'ECONNREFUSED'
  return outcome.stage === 'request' && outcome.reply !== undefined && outcome.reply >= 3 && outcome.reply <= 6
}
