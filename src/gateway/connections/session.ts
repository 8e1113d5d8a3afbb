import { familyOfAddress, formatSocketAddress, isSpecialPurpose, type SocketAddress, toNetwork } from '../../base/address.js'
/** One redirected connection, from accepted to closed, in the order in which it meets the steps. */
import type { ConnectionId, Engine, EngineEvent, StandingOrder, Way } from '../../engine/contract.js'
import { Attempts, type Course } from '../../engine/race.js'
import { reportFault } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import { lackingReplies } from '../hags/ipv6.js'
import type { Hag, Path } from '../model.js'
import type { Upstreams } from './path-table.js'
import type { Bypass } from './policy.js'
import type { Pool } from './prepared.js'

type Accepted = Extract<EngineEvent, { type: 'accepted' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>
type Failed = Extract<EngineEvent, { type: 'failed' }>

/** More than a HAG takes to give up on a dead server (10 s here), so that its answer arrives. */
const requestTimeoutMs = 15_000

/** RFC 1928 section 6. */
const replies = { generalFailure: 1, notAllowed: 2 }

/** Of orders, long after they were replaced by others: a client that was accepted under one may still wait. */
const rememberedOrders = 64

export interface SessionOptions {
  engine: Engine
  upstreams: Upstreams
  bypass: Bypass
  connectTimeoutMs: number
  pool?: Pick<Pool, 'serves' | 'demanded'>
  /** A connection had trouble with a HAG. */
  onSuspicion?(hag: Hag, about: 'connection' | 'request'): void
  /** A HAG has found no way to an IPv6 destination. */
  onNoIpv6?(hag: Hag, destination: SocketAddress): void
  /** A HAG does not allow the request of a connection into the Internet. */
  onRefused?(hag: Hag, path: Path): void
  /** A connection over this path was to be MPTCP and became plain TCP, or had no answer yet when another path had one. */
  onDoubt?(path: Path): void
  /** A connection into the Internet that was to go over a HAG was answered without one, over this path. */
  onWentAround?(path: Path): void
  log: Log
}

export class Sessions {
  readonly #options: SessionOptions
  readonly #attempts: Attempts
  /** What the debug line of a closed connection says beyond the event; stays empty unless debugging. */
  readonly #relaying = new Map<ConnectionId, { destination: string; via: string }>()
  /** The ways of standing orders by their number, and the one that stands. */
  readonly #ordered = new Map<number, Path>()
  #order = 0
  #standing = ''

  constructor(options: SessionOptions) {
    this.#options = options
    this.#attempts = new Attempts(options.engine)
    options.upstreams.onChange = () => this.#giveOrder()
    this.#giveOrder()
  }

  handle(event: EngineEvent): void {
    if (event.type === 'accepted') {
      this.#attempts.begin(event.connection)
      this.#serve(event)
        .catch((error: unknown) => {
          reportFault(this.#options.log, 'unexpected error, its connection is reset', error)
          this.#options.engine.reset(event.connection)
        })
        .finally(() => this.#attempts.end(event.connection))
    } else if (event.type === 'opened' || event.type === 'failed' || event.type === 'closed') {
      this.#attempts.settle(event)
      if (event.type === 'closed' && this.#options.log.debugging) this.#logClosed(event)
    } else if (event.type === 'demand') this.#options.pool?.demanded(event.clients)
  }

  /** What does not differ from client to client the engine does by itself. To debug, each one is to be heard of. */
  #giveOrder(): void {
    const { engine, upstreams, log } = this.#options
    const path = log.debugging ? undefined : upstreams.standing
    const order = path === undefined ? undefined : this.#orderFor(path)
    const standing = JSON.stringify(order ?? '')
    if (standing === this.#standing) return
    this.#standing = standing
    if (order !== undefined && path !== undefined) {
      this.#order += 1
      this.#ordered.set(this.#order, path)
      this.#ordered.delete(this.#order - rememberedOrders)
      engine.setStandingOrder({ ...order, order: this.#order })
    } else engine.setStandingOrder(undefined)
  }

  #orderFor(path: Path): Omit<StandingOrder, 'order'> | undefined {
    const { bypass } = this.#options
    const { socks, ...way } = this.#way(path, { address: '', port: 0 })
    if (socks === undefined) return undefined
    const { host, port, ...handshake } = socks
    const askAboutDestinations = bypass.networks.map(toNetwork)
    return { ...way, socks: handshake, patienceMs: path.patienceMs, askAboutDestinations }
  }

  async #serve(accepted: Accepted): Promise<void> {
    const { engine, upstreams, bypass, pool } = this.#options
    const { connection, destination, followed } = accepted

    const isBypassed = bypass.has(destination.address)
    const ways = isBypassed ? upstreams.direct(destination.address) : upstreams.ways(destination.address)
    const begun = followed === undefined ? undefined : this.#ordered.get(followed.order)
    let isHagsOwn = false
    const choices = begun === undefined ? ways : [begun, ...ways.filter((path) => path !== begun)]
    const course: Course<Path> = {
      way: (path) => {
        upstreams.trying(path)
        const way = this.#way(path, destination)
        if (way.socks?.prepared) pool?.demanded(1)
        return way
      },
      isGone: (path) => upstreams.isGone(path),
      patienceMs: (path) => path.patienceMs,
      failed: (path, failure) => {
        upstreams.saw(path, failure)
        if (failure.reply === replies.notAllowed && upstreams.isHag(destination.address)) isHagsOwn = true
        this.#suspect(path, failure, destination)
        // What the client has said may have reached the server: the engine ends it.
        return isAboutDestination(path, failure) || failure.early !== undefined
      },
      overtaken: (path) => {
        upstreams.overtaken(path)
        if (path.protocol === 'mptcp') this.#options.onDoubt?.(path)
      },
    }
    const start = followed === undefined ? undefined : followed.late ? 'late' : 'answered'
    let raced = await this.#attempts.race(connection, choices, course, start)
    // What a HAG's machine offers beside the HAG its firewall lets us have as before, which a connection of the HAG to itself would go around.
    const isLeft = raced.choice === undefined && raced.outcome?.type !== 'closed' && raced.outcome?.early === undefined
    if (isHagsOwn && isLeft && choices.every(({ hag }) => hag !== undefined))
      raced = await this.#attempts.race(connection, upstreams.direct(destination.address), course)
    const { outcome, choice } = raced
    if (choice !== undefined) {
      upstreams.saw(choice, outcome)
      if (choice.protocol === 'mptcp' && outcome.protocol === 'tcp') this.#options.onDoubt?.(choice)
      if (choice.hag === undefined && !isBypassed && !isSpecialPurpose(destination.address)) this.#options.onWentAround?.(choice)
      this.#opened(connection, destination, choice)
    } else if (outcome?.type !== 'closed') {
      engine.reset(connection)
    }
  }

  #way(path: Path, { address, port }: SocketAddress): Way {
    const { hag, bind, protocol, pipelined } = path
    const { connectTimeoutMs } = this.#options
    if (hag === undefined) return { protocol, remote: { address, port }, bind, connectTimeoutMs }
    const socks: NonNullable<Way['socks']> = {
      host: address,
      port,
      handshake: pipelined ? 'pipelined' : 'sequential',
      timeoutMs: requestTimeoutMs,
    }
    if (this.#options.pool?.serves(path) === true) socks.prepared = true
    if (hag.username !== undefined) socks.username = hag.username
    if (hag.password !== undefined) socks.password = hag.password
    return { protocol, remote: { address: hag.address, port: hag.port }, bind, connectTimeoutMs, socks }
  }

  /** A HAG that does not even refuse a request properly is asked what is wrong with it. */
  #suspect(path: Path, { stage, reply }: Failed, destination: SocketAddress): void {
    const { hag } = path
    if (hag === undefined) return
    if (reply !== undefined && lackingReplies.includes(reply) && familyOfAddress(destination.address) === 6)
      this.#options.onNoIpv6?.(hag, destination)
    if (stage !== 'request') this.#options.onSuspicion?.(hag, 'connection')
    else if (reply === replies.notAllowed && !isSpecialPurpose(destination.address)) this.#options.onRefused?.(hag, path)
    else if (reply === undefined || reply === replies.generalFailure) this.#options.onSuspicion?.(hag, 'request')
  }

  #opened(connection: ConnectionId, destination: SocketAddress, { hag, wan }: Path): void {
    if (!this.#options.log.debugging) return
    const via = hag === undefined ? `direct over ${wan}` : `HAG ${formatSocketAddress(hag)} over ${wan}`
    this.#relaying.set(connection, { destination: formatSocketAddress(destination), via })
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
function isAboutDestination({ hag }: Path, outcome: Failed): boolean {
  if (hag === undefined) return outcome.failure.code === 'ECONNREFUSED'
  return outcome.stage === 'request' && outcome.reply !== undefined && outcome.reply >= 3 && outcome.reply <= 6
}
