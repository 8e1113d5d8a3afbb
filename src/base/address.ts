import ipaddr from 'ipaddr.js'

export type Family = 4 | 6

export const families: readonly Family[] = [4, 6]

/** An IP address in canonical text (RFC 5952 for IPv6, never v4-mapped) with a TCP port. */
export interface SocketAddress {
  address: string
  port: number
}

/** A network in canonical CIDR text, for instance `10.0.0.0/8`; a single address is a /32 or /128. */
export interface Cidr {
  address: ipaddr.IPv4 | ipaddr.IPv6
  prefix: number
}

/** Parses an IP address; a v4-mapped IPv6 address becomes the IPv4 one. Returns undefined for anything else. */
export function parseAddress(text: string): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  // ipaddr.js also accepts classful and octal forms ("10.1", "010.0.0.1"), which no user means.
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return ipaddr.IPv4.parse(text)
  if (!text.includes(':') || !ipaddr.IPv6.isValid(text) || text.includes('%')) return undefined
  const six = ipaddr.IPv6.parse(text)
  return six.isIPv4MappedAddress() ? six.toIPv4Address() : six
}

/** The family of an IP address; undefined if the text is none (a host name, for instance). */
export function familyOf(text: string): Family | undefined {
  const parsed = parseAddress(text)
  return parsed === undefined ? undefined : parsed.kind() === 'ipv4' ? 4 : 6
}

/** Parses `address` or `address/prefix`; host bits are cleared. Returns undefined for anything else. */
export function parseCidr(text: string): Cidr | undefined {
  const [addressText = '', prefixText, ...rest] = text.split('/')
  const address = parseAddress(addressText)
  if (address === undefined || rest.length > 0) return undefined
  const bits = address.kind() === 'ipv4' ? 32 : 128
  if (prefixText !== undefined && !/^\d{1,3}$/.test(prefixText)) return undefined
  const prefix = prefixText === undefined ? bits : Number(prefixText)
  if (prefix > bits) return undefined
  const canonical = `${address.toString()}/${prefix}`
  return {
    address:
      address.kind() === 'ipv4' ? ipaddr.IPv4.networkAddressFromCIDR(canonical) : ipaddr.IPv6.networkAddressFromCIDR(canonical),
    prefix,
  }
}

/** True if the address lies in one of the networks. Networks of the other family never match. */
export function isInside(address: string, networks: readonly Cidr[]): boolean {
  const parsed = parseAddress(address)
  if (parsed === undefined) return false
  return networks.some((network) => network.address.kind() === parsed.kind() && parsed.match(network.address, network.prefix))
}

/**
 * Destinations that are not the Internet (RFC 6890 and the IANA special-purpose registries). Without the documentation networks: nobody has
 * them, so there is nothing to protect, and labs use them.
 */
const specialPurpose = [
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
].map((text) => parseCidr(text) as Cidr)

/** True for an address that is not in the Internet, such as a modem's own. */
export function isSpecialPurpose(address: string): boolean {
  return isInside(address, specialPurpose)
}

const internets = [parseCidr('0.0.0.0/0'), parseCidr('2000::/3')] as [Cidr, Cidr]

/** True if the networks together contain all unicast addresses of the Internet of one family. */
export function coversInternet(networks: readonly Cidr[]): boolean {
  return internets.some((all) => isCovered(all, [...networks, ...specialPurpose]))
}

function isCovered(whole: Cidr, networks: readonly Cidr[]): boolean {
  const kind = whole.address.kind()
  const bytes = whole.address.toByteArray()
  const shares = (one: Cidr, bits: number) => one.address.kind() === kind && whole.address.match(one.address, bits)
  if (networks.some((one) => one.prefix <= whole.prefix && shares(one, one.prefix))) return true
  const inside = networks.filter((one) => one.prefix > whole.prefix && shares(one, whole.prefix))
  if (inside.length === 0) return false
  const upper = [...bytes]
  upper[whole.prefix >> 3] = (bytes[whole.prefix >> 3] ?? 0) | (128 >> (whole.prefix & 7))
  return [bytes, upper].every((half) => isCovered({ address: ipaddr.fromByteArray(half), prefix: whole.prefix + 1 }, inside))
}

/** `192.0.2.1:443` or `[2001:db8::1]:443`. */
export function formatSocketAddress({ address, port }: SocketAddress): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** For the engine. */
export const toNetwork = ({ address, prefix }: Cidr) => ({ address: address.toString(), bits: prefix })

export function formatCidr({ address, prefix }: Cidr): string {
  return `${address.toString()}/${prefix}`
}

export const familyOfAddress = (address: string): Family => (address.includes(':') ? 6 : 4)
