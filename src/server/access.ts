/** Who may use the HAG, and for which destinations. No I/O. */
import type ipaddr from 'ipaddr.js'
import { type Cidr, isInside, parseAddress, parseCidr } from '../shared/address.js'

const networks = (...texts: string[]): Cidr[] => texts.map((text) => parseCidr(text) as Cidr)

/**
 * Destinations that are not the Internet (RFC 6890 and the IANA special-purpose registries). The documentation networks are left out:
 * they are nobody's, so there is nothing to protect, and labs use them.
 */
const refusedNetworks = networks(
  '0.0.0.0/8', // this host; Linux takes 0.0.0.0 as loopback
  '10.0.0.0/8', // private (RFC 1918)
  '100.64.0.0/10', // carrier-grade NAT (RFC 6598)
  '127.0.0.0/8', // loopback
  '169.254.0.0/16', // link-local, cloud metadata
  '172.16.0.0/12', // private
  '192.168.0.0/16', // private
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, broadcast
  '::/127', // unspecified and loopback
  '64:ff9b:1::/48', // local-use NAT64 (RFC 8215)
  'fc00::/7', // unique local (RFC 4193)
  'fe80::/10', // link-local
  'fec0::/10', // site-local (RFC 3879)
  'ff00::/8', // multicast
)

/** IPv6 networks whose addresses carry an IPv4 address that a translator or a tunnel delivers to, and the byte where it begins. */
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
  readonly #isOwn: (address: string) => boolean

  constructor(rules: AccessRules, isOwn: (address: string) => boolean) {
    this.#rules = rules
    this.#isOwn = isOwn
  }

  client(address: string): boolean {
    return isInside(address, this.#rules.clients)
  }

  /** Whether the HAG may connect to an IP address; false for text that is none (an address with a zone, say). */
  destination(address: string): boolean {
    const parsed = parseAddress(address)
    if (parsed === undefined) return false
    const canonical = parsed.toString()
    if (isInside(canonical, this.#rules.allow)) return true
    if (isInside(canonical, refusedNetworks) || this.#isOwn(canonical)) return false
    const inner = embedded(parsed)
    return inner === undefined || this.destination(inner)
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
