import { networkInterfaces } from 'node:os'

const refreshMs = 3000

/** The machine's own addresses, read again at most every three seconds: DHCP and PPPoE change them. */
export class OwnAddresses {
  readonly #read: () => Iterable<string>
  readonly #now: () => number
  #addresses = new Set<string>()
  #readAt = Number.NEGATIVE_INFINITY

  constructor(read = interfaceAddresses, now: () => number = () => performance.now()) {
    this.#read = read
    this.#now = now
  }

  /** True for an address of any interface, and for all of 127.0.0.0/8. */
  has(address: string): boolean {
    return this.all.has(address) || address.startsWith('127.')
  }

  /** Of every interface. */
  get all(): ReadonlySet<string> {
    const now = this.#now()
    if (now - this.#readAt > refreshMs) {
      this.#addresses = new Set(this.#read())
      this.#readAt = now
    }
    return this.#addresses
  }
}

function interfaceAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((addresses = []) => addresses.map(({ address }) => address))
}
