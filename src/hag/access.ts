/** Decides who may use the HAG, and for which destinations. No I/O. */
import type ipaddr from 'ipaddr.js'
import { type Cidr, isInside, isSpecialPurpose, parseAddress, parseCidr } from '../base/address.js'

/** IPv6 networks whose addresses contain an IPv4 address to which a translator or tunnel delivers, and the byte where it begins. */
const embeddings: [Cidr, number, mask: number][] = (
  [
    ['::/96', 12, 0], // v4-compatible (RFC 4291); v4-mapped ones are IPv4 addresses to us already
    ['::ffff:0:0:0/96', 12, 0], // v4-translated (RFC 2765)
    ['64:ff9b::/96', 12, 0], // NAT64 (RFC 6052)
    ['2002::/16', 2, 0], // 6to4 (RFC 3056)
    ['2001::/32', 12, 0xff], // Teredo (RFC 4380), inverted
  ] as const
).map(([text, offset, mask]) => [parseCidr(text) as Cidr, offset, mask])

export interface AccessRules {
  clients: readonly Cidr[]
  allow: readonly Cidr[]
}

export class Access {
  readonly #rules: AccessRules
  readonly #isOwn: (address: string, port: number) => boolean

  constructor(rules: AccessRules, isOwn: (address: string, port: number) => boolean) {
    this.#rules = rules
    this.#isOwn = isOwn
  }

  client(address: string): boolean {
    return isInside(address, this.#rules.clients)
  }

  /** Whether the HAG may connect to an IP address and port. False for text that is no address, also for one with a zone. */
  destination(address: string, port: number): boolean {
    const parsed = parseAddress(address)
    if (parsed === undefined) return false
    const canonical = parsed.toString()
    if (isInside(canonical, this.#rules.allow)) return true
    if (isSpecialPurpose(canonical) || this.#isOwn(canonical, port)) return false
    const inner = embedded(parsed)
    return inner === undefined || this.destination(inner, port)
  }
}

function embedded(address: ipaddr.IPv4 | ipaddr.IPv6): string | undefined {
  if (address.kind() === 'ipv4') return undefined
  const found = embeddings.find(([network]) => address.match(network.address, network.prefix))
  if (found === undefined) return undefined
  const [, offset, mask] = found
  return address
    .toByteArray()
    .slice(offset, offset + 4)
    .map((byte) => byte ^ mask)
    .join('.')
}
