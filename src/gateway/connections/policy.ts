/** Decides what to do with a redirected connection. No I/O: the same input gives the same answer. */

import { type Cidr, isInside } from '../../base/address.js'
import type { GatewayConfig } from '../../config/schema.js'

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
