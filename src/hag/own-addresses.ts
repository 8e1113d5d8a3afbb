import type { Native } from '../engine/contract.js'
import type { Log } from '../telemetry/log.js'

/**
 * What leads to this machine itself, or to no single one. The kernel is asked each time: it alone knows of local routes (`ip route add local`),
 * of addresses whose interface has no carrier, and of what was added a moment ago.
 */
export class OwnAddresses {
  readonly #routeTo: Native['routeTo']
  readonly #log: Pick<Log, 'error'>
  #hasComplained = false

  constructor(routeTo: Native['routeTo'], log: Pick<Log, 'error'>) {
    this.#routeTo = routeTo
    this.#log = log
  }

  /** Of a TCP connection to this IP address and port. True also where the kernel does not say: nobody is let in by mistake. */
  has(address: string, port: number): boolean {
    try {
      const route = this.#routeTo(address, port)
      // Without a route it fails by itself, and the reply says how.
      return route !== 'unicast' && route !== 'none'
    } catch (error) {
      if (!this.#hasComplained) {
        this.#hasComplained = true
        this.#log.error(`destinations are refused: ${(error as Error).message}`)
      }
      return true
    }
  }
}
