/**
 * How the events and calls that every connection has cross between the engine and TypeScript: as numbers and plain arguments, because an
 * object that C++ makes or reads costs 0.3 us for each property. Rare events, and those with IPv6 addresses, cross as the objects that
 * events.ts declares.
 */
import type { DialSpec, Engine, EngineEvent, EngineOptions, Protocol } from './contract.js'

/** What the addon exports as Engine. */
export interface BoundEngine extends Omit<Engine, 'dial'> {
  /** `dial`. Without `host`, the address is the destination itself. */
  dialWith(
    ...args: [
      ...[connection: number, attempt: number, mptcp: boolean, address: string, port: number, bind: string | undefined],
      ...[
        connectTimeoutMs: number,
        host?: string,
        destinationPort?: number,
        username?: string | undefined,
        password?: string | undefined,
      ],
      ...[pipelined?: boolean, prepared?: boolean, timeoutMs?: number],
    ]
  ): void
}

export interface BoundOptions extends Omit<EngineOptions, 'onEvents'> {
  /** Where the addon writes before it calls `onEvents`. */
  numbers: Float64Array
  /** `count`: how many `numbers` are filled. `objects`: the events that cross as objects. */
  onEvents(count: number, objects: EngineEvent[]): void
}

/** The first number of an event. The same as in wire.h. */
const kind = { object: 0, accepted: 1, opened: 2, closed: 3 } as const
const protocols: (Protocol | undefined)[] = [undefined, 'tcp', 'mptcp']
const reasons = ['end', 'client-reset', 'upstream-reset', 'idle', 'handshake', 'refused', 'reset'] as const
const rememberedAddresses = 4096

class Decoder {
  readonly numbers = new Float64Array(4096)
  /** Texts of addresses, because most connections come from, or go to, an address that was seen before. */
  readonly #addresses = new Map<number, string>()
  #at = 0

  decode(count: number, objects: EngineEvent[]): EngineEvent[] {
    const events: EngineEvent[] = []
    let taken = 0
    this.#at = 0
    while (this.#at < count) {
      const event = this.#event()
      events.push(event ?? (objects[taken++] as EngineEvent))
    }
    return events
  }

  #event(): EngineEvent | undefined {
    const type = this.#next()
    if (type === kind.object) return undefined
    const connection = this.#next()
    if (type === kind.accepted) {
      return { type: 'accepted', connection, client: this.#address(), destination: this.#address(), local: this.#address() }
    }
    if (type === kind.opened) {
      const attempt = this.#next()
      const protocol = protocols[this.#next()]
      const prepared = this.#next() !== 0
      const local = this.#address()
      return prepared
        ? { type: 'opened', connection, attempt, local, protocol, prepared }
        : { type: 'opened', connection, attempt, local, protocol }
    }
    const reason = reasons[this.#next()] as (typeof reasons)[number]
    const [sent, received, durationMs, fastPath] = [this.#next(), this.#next(), this.#next(), this.#next()]
    const [client, destination] = [this.#address(), this.#address()]
    return fastPath === 0
      ? { type: 'closed', connection, reason, client, destination, sent, received, durationMs }
      : { type: 'closed', connection, reason, client, destination, fastPath, sent, received, durationMs }
  }

  #address() {
    const number = this.#next()
    const port = this.#next()
    let address = this.#addresses.get(number)
    if (address === undefined) {
      address = `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`
      if (this.#addresses.size >= rememberedAddresses) this.#addresses.clear()
      this.#addresses.set(number, address)
    }
    return { address, port }
  }

  #next(): number {
    return this.numbers[this.#at++] as number
  }
}

/** The addon's Engine as contract.ts declares it. */
export function engineOf(Bound: new (options: BoundOptions) => BoundEngine): new (options: EngineOptions) => Engine {
  return class extends Bound implements Engine {
    constructor({ onEvents, ...options }: EngineOptions) {
      const decoder = new Decoder()
      const { numbers } = decoder
      super({
        ...options,
        numbers,
        // If a callback throws, Node-API refuses the addon's next calls, and the exception is lost.
        onEvents: (count, objects) => {
          try {
            onEvents(decoder.decode(count, objects))
          } catch (error) {
            setImmediate(() => {
              throw error
            })
          }
        },
      })
    }

    dial(connection: number, { protocol, remote, bind, connectTimeoutMs, socks }: DialSpec, attempt = 0): void {
      const isMptcp = protocol === 'mptcp'
      const { address, port } = remote
      if (socks === undefined) {
        this.dialWith(connection, attempt, isMptcp, address, port, bind, connectTimeoutMs)
        return
      }
      const { username, password, handshake, prepared = false, timeoutMs } = socks
      const isPipelined = handshake === 'pipelined'
      // biome-ignore format: a line an object
      this.dialWith(
        connection, attempt, isMptcp, address, port, bind, connectTimeoutMs,
        socks.host, socks.port, username, password, isPipelined, prepared, timeoutMs,
      )
    }
  }
}
