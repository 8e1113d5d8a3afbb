import { familyOfAddress, formatSocketAddress, isSpecialPurpose, type SocketAddress, toNetwork } from '../../base/address.js'
/** One redirected connection, from accepted to closed, in the order in which it meets the steps. */
import type { ConnectionId, DialSpec, Engine, EngineEvent, FastPath } from '../../engine/contract.js'
import { DialRaces, type RaceRules } from '../../engine/race.js'
import { reportFault } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { Hag, Path } from '../model.js'
import { lackingReplies } from '../model.js'
import type { PathTable } from './path-table.js'
import type { Bypass } from './policy.js'
import type { PreparedConnections } from './prepared.js'

type Accepted = Extract<EngineEvent, { type: 'accepted' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>
type Failed = Extract<EngineEvent, { type: 'failed' }>

/** More than a HAG takes to give up on a dead server (10 s here), so that its answer arrives. */
const requestTimeoutMs = 15_000

/** RFC 1928 section 6. */
const replies = { generalFailure: 1, notAllowed: 2 }

/** Of orders, long after they were replaced by others: a client that was accepted under one may still wait. */
const rememberedFastPaths = 64

export interface SessionOptions {
  engine: Engine
  pathTable: PathTable
  bypass: Bypass
  connectTimeoutMs: number
  prepared?: Pick<PreparedConnections, 'serves' | 'demanded'>
  /** A connection had trouble with a HAG. */
  onHagTrouble?(hag: Hag, about: 'connection' | 'request'): void
  /** A HAG has found no way to an IPv6 destination. */
  onNoIpv6?(hag: Hag, destination: SocketAddress): void
  /** A HAG does not allow the request of a connection into the Internet. */
  onRefused?(hag: Hag, path: Path): void
  /** A connection over this path was to be MPTCP and became plain TCP, or had no answer yet when another path had one. */
  onMptcpFellBack?(path: Path): void
  /** A connection into the Internet that was to go over a HAG was answered without one, over this path. */
  onDirectAnswer?(path: Path): void
  log: Log
}

export class Sessions {
  readonly #options: SessionOptions
  readonly #races: DialRaces
  /** What the debug line of a closed connection says beyond the event; stays empty unless debugging. */
  readonly #relaying = new Map<ConnectionId, { destination: string; via: string }>()
  /** The paths of the last fast paths by their number; a client may wait under an earlier one. */
  readonly #fastPaths = new Map<number, Path>()
  #fastPathId = 0
  #current = ''

  constructor(options: SessionOptions) {
    this.#options = options
    this.#races = new DialRaces(options.engine)
    options.pathTable.onChange = () => this.#setFastPath()
    this.#setFastPath()
  }

  handle(event: EngineEvent): void {
    if (event.type === 'accepted') {
      this.#races.begin(event.connection)
      this.#serve(event)
        .catch((error: unknown) => {
          reportFault(this.#options.log, 'unexpected error, its connection is reset', error)
          this.#options.engine.reset(event.connection)
        })
        .finally(() => this.#races.end(event.connection))
    } else if (event.type === 'opened' || event.type === 'failed' || event.type === 'closed') {
      this.#races.settle(event)
      if (event.type === 'closed' && this.#options.log.debugging) this.#logClosed(event)
    } else if (event.type === 'demand') this.#options.prepared?.demanded(event.clients)
  }

  /** What does not differ from client to client the engine does by itself. To debug, each one is to be heard of. */
  #setFastPath(): void {
    const { engine, pathTable, log } = this.#options
    const path = log.debugging ? undefined : pathTable.fastPath
    const fastPath = path === undefined ? undefined : this.#fastPathFor(path)
    const current = JSON.stringify(fastPath ?? '')
    if (current === this.#current) return
    this.#current = current
    if (fastPath !== undefined && path !== undefined) {
      this.#fastPathId += 1
      this.#fastPaths.set(this.#fastPathId, path)
      this.#fastPaths.delete(this.#fastPathId - rememberedFastPaths)
      engine.setFastPath({ ...fastPath, id: this.#fastPathId })
    } else engine.setFastPath(undefined)
  }

  #fastPathFor(path: Path): Omit<FastPath, 'id'> | undefined {
    const { bypass } = this.#options
    const { socks, ...way } = this.#dialSpec(path, { address: '', port: 0 })
    if (socks === undefined) return undefined
    const { host, port, ...handshake } = socks
    const askAboutDestinations = bypass.networks.map(toNetwork)
    return { ...way, socks: handshake, patienceMs: path.patienceMs, askAboutDestinations }
  }

  async #serve(accepted: Accepted): Promise<void> {
    const { engine, pathTable, bypass, prepared } = this.#options
    const { connection, destination, viaFastPath } = accepted

    const isBypassed = bypass.has(destination.address)
    const paths = isBypassed ? pathTable.directPathsTo(destination.address) : pathTable.pathsTo(destination.address)
    const begun = viaFastPath === undefined ? undefined : this.#fastPaths.get(viaFastPath.id)
    let isHagsOwn = false
    const choices = begun === undefined ? paths : [begun, ...paths.filter((path) => path !== begun)]
    const course: RaceRules<Path> = {
      dialSpec: (path) => {
        pathTable.beginTrial(path)
        const spec = this.#dialSpec(path, destination)
        if (spec.socks?.prepared) prepared?.demanded(1)
        return spec
      },
      isGone: (path) => pathTable.isGone(path),
      patienceMs: (path) => path.patienceMs,
      failed: (path, failure) => {
        pathTable.recordOutcome(path, failure)
        if (failure.reply === replies.notAllowed && pathTable.isHag(destination.address)) isHagsOwn = true
        this.#reportTrouble(path, failure, destination)
        // What the client has said may have reached the server: the engine ends it.
        return isAboutDestination(path, failure) || failure.early !== undefined
      },
      lostRace: (path) => {
        pathTable.recordLostRace(path)
        if (path.protocol === 'mptcp') this.#options.onMptcpFellBack?.(path)
      },
    }
    const start = viaFastPath === undefined ? undefined : viaFastPath.timedOut ? 'late' : 'answered'
    let raced = await this.#races.race(connection, choices, course, start)
    // What a HAG's machine offers beside the HAG its firewall lets us have as before, which a connection of the HAG to itself would go around.
    const isLeft = raced.choice === undefined && raced.outcome?.type !== 'closed' && raced.outcome?.early === undefined
    if (isHagsOwn && isLeft && choices.every(({ hag }) => hag !== undefined))
      raced = await this.#races.race(connection, pathTable.directPathsTo(destination.address), course)
    const { outcome, choice } = raced
    if (choice !== undefined) {
      pathTable.recordOutcome(choice, outcome)
      if (choice.protocol === 'mptcp' && outcome.protocol === 'tcp') this.#options.onMptcpFellBack?.(choice)
      if (choice.hag === undefined && !isBypassed && !isSpecialPurpose(destination.address))
        this.#options.onDirectAnswer?.(choice)
      this.#opened(connection, destination, choice)
    } else if (outcome?.type !== 'closed') {
      engine.reset(connection)
    }
  }

  #dialSpec(path: Path, { address, port }: SocketAddress): DialSpec {
    const { hag, bind, protocol, pipelined } = path
    const { connectTimeoutMs } = this.#options
    if (hag === undefined) return { protocol, remote: { address, port }, bind, connectTimeoutMs }
    const socks: NonNullable<DialSpec['socks']> = {
      host: address,
      port,
      handshake: pipelined ? 'pipelined' : 'sequential',
      timeoutMs: requestTimeoutMs,
    }
    if (this.#options.prepared?.serves(path) === true) socks.prepared = true
    if (hag.username !== undefined) socks.username = hag.username
    if (hag.password !== undefined) socks.password = hag.password
    return { protocol, remote: { address: hag.address, port: hag.port }, bind, connectTimeoutMs, socks }
  }

  /** A HAG that does not even refuse a request properly is asked what is wrong with it. */
  #reportTrouble(path: Path, { stage, reply }: Failed, destination: SocketAddress): void {
    const { hag } = path
    if (hag === undefined) return
    if (reply !== undefined && lackingReplies.includes(reply) && familyOfAddress(destination.address) === 6)
      this.#options.onNoIpv6?.(hag, destination)
    if (stage !== 'request') this.#options.onHagTrouble?.(hag, 'connection')
    else if (reply === replies.notAllowed && !isSpecialPurpose(destination.address)) this.#options.onRefused?.(hag, path)
    else if (reply === undefined || reply === replies.generalFailure) this.#options.onHagTrouble?.(hag, 'request')
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
