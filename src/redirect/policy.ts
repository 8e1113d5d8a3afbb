/** What may be done with a redirected connection. No I/O: the same input gives the same answer. */
import type { GatewayConfig } from '../config/schema.js'
import type { Protocol } from '../native/index.js'
import { type Cidr, type Family, isInside, type SocketAddress } from '../shared/address.js'

export interface Hag extends SocketAddress {
  username?: string
  password?: string
}

/** One way out: to a HAG over a WAN or, without `hag`, to the destination itself over a WAN. */
export interface Path {
  hag?: Hag
  /** Its name. */
  wan: string
  /** The WAN's address of the family of the HAG or the destination. */
  bind: string
  /** `tcp` towards a HAG: over this WAN MPTCP would only take time. */
  protocol: Protocol
  /** The HAG takes all that is sent to it in one go. */
  pipelined: boolean
  /** Milliseconds after which the next way is tried beside this one. */
  patienceMs: number
  /** Of the WAN, without what waits in its queues and for our processor, milliseconds; undefined while it is unknown. */
  leastRttMs: number | undefined
}

export const familyOfAddress = (address: string): Family => (address.includes(':') ? 6 : 4)

const rememberedAddresses = 4096

/** Whether destinations are bypassed, remembered per address: most connections go where one went before. */
export class Bypass {
  readonly networks: readonly Cidr[]
  readonly #known = new Map<string, boolean>()

  constructor({ bypass }: Pick<GatewayConfig, 'bypass'>) {
    this.networks = bypass
  }

  has(address: string): boolean {
    if (this.networks.length === 0) return false
    let inside = this.#known.get(address)
    if (inside === undefined) {
      inside = isInside(address, this.networks)
      if (this.#known.size >= rememberedAddresses) this.#known.clear()
      this.#known.set(address, inside)
    }
    return inside
  }
}
