import type { Native } from '../engine/contract.js'
import type { Emit } from '../telemetry/events.js'

/**
 * Tells destinations that are this machine itself, or no single machine. Asks the kernel each time, because only it knows local routes (`ip
 * route add local`), addresses whose interface has no carrier, and new addresses.
 */
export class OwnAddresses {
  readonly #routeTo: Native['routeTo']
  readonly #emit: Emit
  #hasComplained = false

  constructor(routeTo: Native['routeTo'], emit: Emit) {
    this.#routeTo = routeTo
    this.#emit = emit
  }

  /** For a TCP connection to this IP address and port. Also true if the kernel does not tell, so that nobody gets in by mistake. */
  has(address: string, port: number): boolean {
    try {
      const route = this.#routeTo(address, port)
      // Without a route the connection fails by itself, and the reply tells why.
      return route !== 'unicast' && route !== 'none'
    } catch (error) {
      if (!this.#hasComplained) {
        this.#hasComplained = true
        this.#emit({ type: 'destinations-refused', reason: (error as Error).message })
      }
      return true
    }
  }
}
