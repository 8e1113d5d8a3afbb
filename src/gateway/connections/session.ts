/** One redirected connection from `accepted` to `closed`, step by step. */

import { familyOfAddress, formatSocketAddress, isSpecialPurpose, type SocketAddress, toNetwork } from '../../base/address.js'
import type { ConnectionId, DialSpec, Engine, EngineEvent, FastPath } from '../../engine/contract.js'
import { DialRaces, type RaceRules } from '../../engine/race.js'
import { reportFault } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { ConnectionFact } from '../facts.js'
import { lackingReplies, type Path } from '../model.js'
import { PathCounters, type PathCounts } from './path-counters.js'
import type { PathTable } from './path-table.js'
import type { Bypass } from './policy.js'
import type { PreparedConnections } from './prepared.js'

type Accepted = Extract<EngineEvent, { type: 'accepted' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>
type Failed = Extract<EngineEvent, { type: 'failed' }>

/** Longer than a HAG waits for a dead server (10 s for ours), so that its answer arrives. */
const requestTimeoutMs = 15_000

/** RFC 1928 section 6. */
const replies = { generalFailure: 1, notAllowed: 2 }

/** Connections last longer than the fast path that opened them. */
const rememberedFastPaths = 64

export interface SessionOptions {
  engine: Engine
  pathTable: PathTable
  bypass: Bypass
  connectTimeoutMs: number
  prepared?: Pick<PreparedConnections, 'serves' | 'demanded'>
  report(fact: ConnectionFact): void
  /** Clients are active, after nobody was. */
  onActive?(): void
  log: Log
}

export class Sessions {
  readonly #options: SessionOptions
  readonly #races: DialRaces
  readonly #counters = new PathCounters()
  /** The paths of connections that the fast path does not serve. */
  readonly #relaying = new Map<ConnectionId, Path>()
  /** By id. */
  readonly #fastPaths = new Map<number, Path>()
  #lastFastPathId = 0
  #current = ''

  constructor(options: SessionOptions) {
    this.#options = options
    this.#races = new DialRaces(options.engine)
    options.pathTable.onChange(() => this.#setFastPath())
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
      if (event.type === 'closed') this.#closed(event)
    } else if (event.type === 'demand') this.#options.prepared?.demanded(event.clients)
    else if (event.type === 'active') this.#options.onActive?.()
  }

  /** How connections fared, by path. */
  countsByPath(): PathCounts[] {
    return this.#counters.read()
  }

  /** What is the same for all clients, which the engine then does by itself. */
  #setFastPath(): void {
    const { engine, pathTable } = this.#options
    const path = pathTable.fastPath
    const fastPath = path === undefined ? undefined : this.#fastPathFor(path)
    const current = JSON.stringify(fastPath ?? '')
    if (current === this.#current) return
    this.#current = current
    engine.setFastPath(fastPath)
  }

  /** The same id for the same path, whatever else changes. */
  #fastPathId(path: Path): number {
    for (const [id, known] of this.#fastPaths) if (known === path) return id
    this.#lastFastPathId += 1
    this.#fastPaths.set(this.#lastFastPathId, path)
    this.#fastPaths.delete(this.#lastFastPathId - rememberedFastPaths)
    return this.#lastFastPathId
  }

  #fastPathFor(path: Path): FastPath | undefined {
    const { bypass } = this.#options
    const { socks, ...spec } = this.#dialSpec(path, { address: '', port: 0 })
    if (socks === undefined) return undefined
    const { host, port, ...handshake } = socks
    const askAboutDestinations = bypass.networks.map(toNetwork)
    return { ...spec, id: this.#fastPathId(path), socks: handshake, patienceMs: path.patienceMs, askAboutDestinations }
  }

  async #serve(accepted: Accepted): Promise<void> {
    const { engine, pathTable, bypass, prepared, report } = this.#options
    const { connection, destination, viaFastPath } = accepted

    const isBypassed = bypass.has(destination.address)
    const paths = isBypassed ? pathTable.directPathsTo(destination.address) : pathTable.pathsTo(destination.address)
    const begun = viaFastPath === undefined ? undefined : this.#fastPaths.get(viaFastPath.id)
    let isHagsOwn = false
    const choices = begun === undefined ? paths : [begun, ...paths.filter((path) => path !== begun)]
    const rules: RaceRules<Path> = {
      dialSpec: (path) => {
        pathTable.beginTrial(path)
        const spec = this.#dialSpec(path, destination)
        if (spec.socks?.prepared) prepared?.demanded(1)
        return spec
      },
      isGone: (path) => pathTable.isGone(path),
      patienceMs: (path) => path.patienceMs,
      opened: (path, opened) => {
        pathTable.recordOutcome(path, opened)
        this.#counters.record(path, opened)
        this.#relaying.set(connection, path)
        if (path.protocol === 'mptcp' && opened.protocol === 'tcp') report({ type: 'mptcp-fell-back', bind: path.bind })
        if (path.hag === undefined && !isBypassed && !isSpecialPurpose(destination.address))
          report({ type: 'direct-answered', path })
      },
      failed: (path, failure) => {
        pathTable.recordOutcome(path, failure)
        this.#counters.record(path, failure)
        if (failure.reply === replies.notAllowed && pathTable.isHag(destination.address)) isHagsOwn = true
        this.#reportTrouble(path, failure, destination)
        // The client's words may have reached the server, so the engine ends the connection.
        return isAboutDestination(path, failure) || failure.early !== undefined
      },
      lostRace: (path) => {
        pathTable.recordLostRace(path)
        if (path.protocol === 'mptcp') report({ type: 'mptcp-fell-back', bind: path.bind })
      },
    }
    const start = viaFastPath === undefined ? undefined : viaFastPath.timedOut ? 'late' : 'answered'
    let raced = await this.#races.race(connection, choices, rules, start)
    // Other services on the HAG's machine are reached directly, so that its firewall decides: it would not see a connection from the HAG to
    // itself.
    const isLeft = raced.choice === undefined && raced.outcome?.type !== 'closed' && raced.outcome?.early === undefined
    if (isHagsOwn && isLeft && choices.every(({ hag }) => hag !== undefined))
      raced = await this.#races.race(connection, pathTable.directPathsTo(destination.address), rules)
    if (raced.choice === undefined && raced.outcome?.type !== 'closed') engine.reset(connection)
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

  /** If a HAG does not even refuse a request properly, probe it to find out what is wrong. */
  #reportTrouble(path: Path, { stage, reply }: Failed, destination: SocketAddress): void {
    const { hag } = path
    const { report } = this.#options
    if (hag === undefined) return
    if (reply !== undefined && lackingReplies.includes(reply) && familyOfAddress(destination.address) === 6)
      report({ type: 'ipv6-unreachable', hag, destination })
    if (stage !== 'request') report({ type: 'hag-trouble', hag, about: 'connection' })
    else if (reply === replies.notAllowed && !isSpecialPurpose(destination.address))
      report({ type: 'request-refused', hag, path })
    else if (reply === undefined || reply === replies.generalFailure) report({ type: 'hag-trouble', hag, about: 'request' })
  }

  #closed(event: Closed): void {
    const { connection, fastPath } = event
    const path = fastPath === undefined ? this.#relaying.get(connection) : this.#fastPaths.get(fastPath)
    this.#relaying.delete(connection)
    if (path !== undefined) this.#counters.record(path, event)
    if (this.#options.log.debugging) this.#logClosed(event, path)
  }

  #logClosed({ client, destination, reason, failure, sent, received, durationMs }: Closed, path: Path | undefined): void {
    this.#options.log.debug('connection closed', {
      client: formatSocketAddress(client),
      destination: path && destination && formatSocketAddress(destination),
      via: destination && path && viaOf(path),
      reason,
      code: failure?.code,
      sent,
      received,
      durationMs,
    })
  }
}

function viaOf({ hag, wan }: Path): string {
  return hag === undefined ? `direct over ${wan}` : `HAG ${formatSocketAddress(hag)} over ${wan}`
}

/**
 * True if another path would give the same answer: a HAG tells what it found in the destination's network (RFC 1928 section 6: 3 network
 * unreachable, 4 host unreachable, 5 refused, 6 TTL expired), or the destination itself refused us.
 */
function isAboutDestination({ hag }: Path, outcome: Failed): boolean {
  if (hag === undefined) return outcome.failure.code === 'ECONNREFUSED'
  return outcome.stage === 'request' && outcome.reply !== undefined && outcome.reply >= 3 && outcome.reply <= 6
}
