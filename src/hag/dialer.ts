/**
 * One SOCKS request, from credentials to closed: access, name resolution, an attempt for each address, and a reply that tells what really
 * happened.
 */

import { familyOf, formatSocketAddress, type SocketAddress } from '../base/address.js'
import type { ConnectionId, Engine, EngineEvent, Failure } from '../engine/contract.js'
import { DialRaces } from '../engine/race.js'
import { reportFault } from '../service/faults.js'
import type { Log } from '../telemetry/log.js'
import type { Access } from './access.js'
import type { Names } from './names.js'
import type { Users } from './users.js'

type Request = Extract<EngineEvent, { type: 'request' }>
type Credentials = Extract<EngineEvent, { type: 'credentials' }>
type Closed = Extract<EngineEvent, { type: 'closed' }>

/** RFC 1928 section 6. */
export const reply = { failure: 1, notAllowed: 2, networkUnreachable: 3, hostUnreachable: 4, refused: 5 } as const

/** Enough for any real name; a hostile name must not keep us busy. */
const maxAddresses = 8

/** RFC 8305 section 8: how long to wait before the next address is tried beside the last one. */
const attemptDelayMs = 250

export interface DialOptions {
  engine: Engine
  access: Access
  users?: Pick<Users, 'accepts'>
  connectTimeoutMs: number
  log: Log
  names: Pick<Names, 'resolve'>
}

export class Dialer {
  readonly #options: DialOptions
  readonly #races: DialRaces
  /** Ends the lookup of a connection's name. */
  readonly #resolving = new Map<ConnectionId, AbortController>()

  constructor(options: DialOptions) {
    this.#options = options
    this.#races = new DialRaces(options.engine)
  }

  handle(event: EngineEvent): void {
    if (event.type === 'credentials') {
      this.#options.engine.authenticate(event.connection, this.#authentic(event))
    } else if (event.type === 'request') {
      this.#races.begin(event.connection)
      this.#serve(event)
        .catch((error: unknown) => {
          reportFault(this.#options.log, 'unexpected error, its connection is reset', error)
          this.#options.engine.reset(event.connection)
        })
        .finally(() => this.#races.end(event.connection))
    } else if (event.type === 'opened' || event.type === 'failed' || event.type === 'closed') {
      this.#races.settle(event)
      if (event.type !== 'closed') return
      this.#resolving.get(event.connection)?.abort()
      if (this.#options.log.debugging) this.#logClosed(event)
    }
  }

  #authentic({ client, username, password }: Credentials): boolean {
    const { access, users, log } = this.#options
    if (!access.client(client.address)) {
      log.debug('client is not in `clients`', { client: client.address })
      return false
    }
    return users === undefined || users.accepts(username, password)
  }

  async #serve(request: Request): Promise<void> {
    const { connection, client, local, host, port } = request
    const { engine, access, log } = this.#options
    if (!access.client(client.address)) {
      log.debug('client is not in `clients`', { client: client.address })
      return engine.refuse(connection, reply.notAllowed)
    }

    const deadline = performance.now() + this.#options.connectTimeoutMs
    const addresses = await this.#addresses(request)
    if (addresses === undefined) return engine.refuse(connection, reply.hostUnreachable)
    // Every address is checked, not the name: a name may lead anywhere (DNS rebinding).
    const allowed = addresses
      .filter((address) => access.destination(address, port) || this.#isOurselves(address, port, local))
      .slice(0, maxAddresses)
    if (allowed.length === 0) {
      log.debug('destination is not allowed', { client: client.address, host })
      return engine.refuse(connection, reply.notAllowed)
    }

    let answer: number = reply.hostUnreachable
    const { outcome, choice } = await this.#races.race(connection, allowed, {
      dialSpec: (address) => {
        const timeLeft = Math.max(1, Math.ceil(deadline - performance.now()))
        return { protocol: 'tcp', remote: { address, port }, connectTimeoutMs: timeLeft }
      },
      patienceMs: () => attemptDelayMs,
      failed: (_, { failure }) => {
        // If there are several answers, the one that tells most: a port that refused us proves that the host is there.
        if (answer !== reply.refused) answer = replyFor(failure)
        return false
      },
    })
    if (choice === undefined && outcome?.type !== 'closed') return engine.refuse(connection, answer)
  }

  /**
   * Our own SOCKS port: with it a gateway finds out whether we take pipelined requests. Harmless if our own address is not in `clients`,
   * because then only the greeting is served.
   */
  #isOurselves(address: string, port: number, local: SocketAddress): boolean {
    return address === local.address && port === local.port && !this.#options.access.client(address)
  }

  async #addresses({ connection, client, host }: Request): Promise<string[] | undefined> {
    if (familyOf(host) !== undefined) return [host]
    const ended = new AbortController()
    const timer = setTimeout(() => ended.abort(), this.#options.connectTimeoutMs)
    this.#resolving.set(connection, ended)
    try {
      return interleave(await this.#options.names.resolve(host, client.address, ended.signal))
    } catch (error) {
      this.#options.log.debug('name not resolved', { host, code: (error as NodeJS.ErrnoException).code })
      return undefined
    } finally {
      clearTimeout(timer)
      this.#resolving.delete(connection)
    }
  }

  #logClosed({ client, destination, reason, failure, sent, received, durationMs }: Closed): void {
    this.#options.log.debug('connection closed', {
      client: formatSocketAddress(client),
      destination: destination && formatSocketAddress(destination),
      reason,
      code: failure?.code,
      sent,
      received,
      durationMs,
    })
  }
}

/**
 * The reply that tells the client what really happened. A timeout is "host unreachable": 6 would mean that a router reported an expired
 * TTL, which is not so.
 */
export function replyFor({ code }: Failure): number {
  switch (code) {
    case 'ECONNREFUSED':
      return reply.refused
    case 'ENETUNREACH':
      return reply.networkUnreachable
    case 'EHOSTUNREACH':
    case 'ETIMEDOUT':
      return reply.hostUnreachable
    case 'EACCES':
    case 'EPERM':
      return reply.notAllowed
    default:
      return reply.failure
  }
}

/** Alternates between the families, beginning with the first address's (RFC 8305 section 4): a dead family costs only one attempt. */
export function interleave(addresses: readonly string[]): string[] {
  const families = addresses.map((address) => address.includes(':'))
  const first = addresses.filter((_, index) => families[index] === families[0])
  const second = addresses.filter((_, index) => families[index] !== families[0])
  return addresses
    .map((_, index) => [first[index], second[index]])
    .flatMap((pair) => pair.filter((address) => address !== undefined))
}
