/** Counts connections and bytes by home: the user, or without users the client's address. */
import type { ConnectionId, EngineEvent } from '../engine/contract.js'

export interface HomeCounts {
  /** The user's name, or the client's address. */
  home: string
  /** Requests that are served now, and all so far. */
  connections: number
  served: number
  /** Bytes of payload of ended connections, to and from the Internet. */
  sent: number
  received: number
}

/** Addresses that have left are forgotten first, so that strangers do not fill the memory. */
const maxHomes = 1000

export class Homes {
  /** The home that was served last comes last. */
  readonly #homes = new Map<string, HomeCounts>()
  readonly #users = new Map<ConnectionId, string>()
  readonly #served = new Map<ConnectionId, HomeCounts>()

  /** To be called with each event that the engine has for the HAG, before it is answered. */
  record(event: EngineEvent): void {
    if (event.type === 'credentials') this.#users.set(event.connection, event.username)
    else if (event.type === 'request') {
      const home = this.#of(this.#users.get(event.connection) ?? event.client.address)
      home.connections++
      home.served++
      this.#served.set(event.connection, home)
    } else if (event.type === 'closed') {
      this.#users.delete(event.connection)
      const home = this.#served.get(event.connection)
      if (home === undefined) return
      this.#served.delete(event.connection)
      home.connections--
      home.sent += event.sent
      home.received += event.received
    }
  }

  /** Those with the most connections come first. */
  read(): HomeCounts[] {
    return [...this.#homes.values()]
      .map((counts) => ({ ...counts }))
      .sort((one, other) => other.connections - one.connections || other.served - one.served)
  }

  #of(home: string): HomeCounts {
    const counts = this.#homes.get(home) ?? { home, connections: 0, served: 0, sent: 0, received: 0 }
    this.#homes.delete(home)
    this.#homes.set(home, counts)
    if (this.#homes.size > maxHomes) {
      for (const [known, { connections }] of this.#homes) {
        if (connections > 0 || known === home) continue
        this.#homes.delete(known)
        break
      }
    }
    return counts
  }
}
