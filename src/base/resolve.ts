/**
 * Resolves host names without getaddrinfo(3), which cannot be cancelled, and while a name server is silent blocks one of the four threads
 * that also write the log. Reads numbers and the hosts file as getaddrinfo does, but no other source of nsswitch.conf (mDNS, LDAP).
 */
import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { readFileSync, statSync } from 'node:fs'
import { domainToASCII } from 'node:url'
import { familyOf, isSpecialPurpose, parseAddress } from './address.js'
import { pause } from './pause.js'

/** The first wait for an answer. It doubles with each try, so a silent server costs 7 s. */
const firstTryMs = 1000
const tries = 3
/**
 * RFC 8305 section 3: how long an answer with IPv4 addresses waits for the one with IPv6 addresses, because some servers never answer AAAA
 * questions.
 */
const resolutionDelayMs = 50
/** A record may be valid for a day, but nobody should have to restart us because a server moved. */
const maxLifetimeMs = 300_000
/** For an answer without one of the families because a name server was silent about it. */
const partialLifetimeMs = 5000
/** Of each family. */
const maxAddresses = 16

export interface Found {
  /** Canonical text. The family to try first comes first. */
  addresses: readonly string[]
  /** How long it may be kept. */
  lifetimeMs: number
}

/** Source addresses of the questions; they select the WAN. */
export interface Source {
  address4?: string
  address6?: string
}

export interface ResolverOptions {
  /** Tests pass their own. */
  hostsFile?: string
  resolvConf?: string
  /** `address:port`. Default: read from resolv.conf for each question. */
  servers?: readonly string[]
  /** The source address that the kernel would use; undefined without a route. */
  sourceFor?: (address: string) => Promise<string | undefined>
}

interface Records {
  addresses: readonly string[]
  lifetimeMs: number
  /** Why there are none. */
  code?: string
}

export class NameResolver {
  readonly #options: Required<Omit<ResolverOptions, 'servers'>> & Pick<ResolverOptions, 'servers'>
  #hosts: ReadonlyMap<string, readonly string[]> = new Map()
  /** Identifies the version of the hosts file that was read. */
  #version = ''

  constructor({ hostsFile = '/etc/hosts', resolvConf = '/etc/resolv.conf', ...more }: ResolverOptions = {}) {
    this.#options = { hostsFile, resolvConf, sourceFor: kernelSourceFor, ...more }
  }

  /** The addresses of a canonical name that need no name server: a number, or an entry of the hosts file. */
  known(name: string): readonly string[] | undefined {
    const address = parseAddress(name)?.toString()
    if (address !== undefined) return [address]
    this.#readHosts()
    return this.#hosts.get(name)
  }

  /** Asks the name servers from these addresses of ours. Rejects with a `code` of c-ares; with `ECANCELLED` if the signal is aborted. */
  async ask(name: string, signal: AbortSignal, from?: Source): Promise<Found> {
    let absent: unknown
    for (const candidate of this.#candidates(name)) {
      try {
        return await this.#askFor(candidate, signal, from)
      } catch (error) {
        if (!isAbsent((error as NodeJS.ErrnoException).code)) throw error
        absent = error
      }
    }
    throw absent
  }

  /** `known` or else `ask`, for a name as somebody wrote it. */
  async addresses(text: string, signal: AbortSignal, from?: Source): Promise<readonly string[]> {
    const name = canonicalName(text)
    if (name === undefined) throw failure('ENOTFOUND')
    return this.known(name) ?? (await this.ask(name, signal, from)).addresses
  }

  /** A name with dots is complete (RFC 1928: "fully-qualified"). One without is first looked up in the domains of `search`. */
  #candidates(name: string): string[] {
    if (name.includes('.')) return [name]
    return [...searchDomains(readOr(this.#options.resolvConf)).map((domain) => `${name}.${domain}`), name]
  }

  #askFor(name: string, signal: AbortSignal, from?: Source): Promise<Found> {
    return askServers({ servers: this.#options.servers, from }, signal, async (resolver, ended) => {
      const ipv6 = recordsOf(resolver.resolve6(name, { ttl: true }))
      const ipv4 = recordsOf(resolver.resolve4(name, { ttl: true }))
      const four = await ipv4
      const six = await (four.code === undefined ? Promise.race([ipv6, nothingWithin(resolutionDelayMs, ended)]) : ipv6)
      const addresses = await this.#ordered(four.addresses, six.addresses)
      if (addresses.length === 0) throw failure(isAbsent(four.code) ? (six.code ?? '') : (four.code ?? ''))
      const found = [four, six].filter(({ code }) => code === undefined || !isAbsent(code))
      return { addresses, lifetimeMs: Math.min(...found.map(({ lifetimeMs }) => lifetimeMs)) }
    })
  }

  /** IPv6 first if the kernel would use it as RFC 6724 says: with a route, and not from a private address to a public one. */
  async #ordered(four: readonly string[], six: readonly string[]): Promise<readonly string[]> {
    const [first] = six
    if (first === undefined || four.length === 0) return [...four, ...six]
    const source = await this.#options.sourceFor(first)
    const prefersSix = source !== undefined && isSpecialPurpose(source) === isSpecialPurpose(first)
    return prefersSix ? [...six, ...four] : [...four, ...six]
  }

  #readHosts(): void {
    try {
      const { mtimeMs, size, ino } = statSync(this.#options.hostsFile)
      const version = [mtimeMs, size, ino].join()
      if (version === this.#version) return
      this.#hosts = parseHosts(readFileSync(this.#options.hostsFile, 'utf8'))
      this.#version = version
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return
      this.#hosts = new Map()
      this.#version = ''
    }
  }
}

/** Codes of a name server that cannot answer. */
const isRefusal = (code: string | undefined) => ['ESERVFAIL', 'EREFUSED', 'ENOTIMP', 'EFORMERR'].includes(code ?? '')

/**
 * Asks with a new c-ares channel: it reads resolv.conf again, can be cancelled alone, and has a source port that nobody can guess. If a
 * name server answers that it cannot tell, asks the next ones, as getaddrinfo does: Node's c-ares does so only after silence.
 */
export async function askServers<Answer>(
  { servers: given, from }: { servers?: readonly string[] | undefined; from?: Source | undefined },
  signal: AbortSignal,
  ask: (resolver: Resolver, ended: AbortSignal) => Promise<Answer>,
): Promise<Answer> {
  for (let refused = 0; ; refused += 1) {
    if (signal.aborted) throw failure('ECANCELLED')
    const resolver = new Resolver({ timeout: firstTryMs, tries })
    if (given !== undefined) resolver.setServers(given)
    if (from !== undefined) resolver.setLocalAddress(from.address4 ?? '0.0.0.0', from.address6 ?? '::0')
    const servers = resolver.getServers().slice(refused)
    if (refused > 0) resolver.setServers(servers)
    const ended = new AbortController()
    const end = () => {
      ended.abort()
      resolver.cancel()
    }
    signal.addEventListener('abort', end, { once: true })
    try {
      return await ask(resolver, ended.signal)
    } catch (error) {
      if (servers.length <= 1 || !isRefusal((error as NodeJS.ErrnoException).code)) throw error
    } finally {
      signal.removeEventListener('abort', end)
      end()
    }
  }
}

/**
 * The canonical spelling of a host name: lower case, without a dot at the end, IDN as A-labels. A number as inet_aton(3) reads it (`127.1`,
 * `0x7f000001`) becomes its address, as in browsers (URL Standard, section 3.5), so that the address can be checked. Undefined if it is no
 * host name.
 */
export function canonicalName(text: string): string | undefined {
  // Decides nearly all names, in a microsecond; hosts files may have a hundred thousand.
  if (plainName.test(text) && text.length <= 253 && !text.includes('xn--')) return text
  const address = parseAddress(text)?.toString()
  if (address !== undefined) return address
  // Only the ASCII characters of names: domainToASCII would decode others, or end the name there.
  if (!/^[\w.\-\u0080-\u{10ffff}]+$/u.test(text)) return undefined
  const name = domainToASCII(text).replace(/\.$/, '')
  return name.length <= 253 && name.split('.').every((label) => /^[\w-]{1,63}$/.test(label)) ? name : undefined
}

/** A number's last label begins with a digit, so it does not match. */
const plainName = /^(?:[a-z\d_-]{1,63}\.)*[a-z][a-z\d_-]{0,62}$/

/** The domains of the last `search` or `domain` line (resolv.conf(5)). */
export function searchDomains(text: string): string[] {
  const last = [...text.matchAll(/^(?:search|domain)[ \t]+(.*)$/gm)].at(-1)?.[1] ?? ''
  return last.split(/\s+/).flatMap((domain) => canonicalName(domain) ?? [])
}

/** Addresses by canonical name (hosts(5)). */
function parseHosts(text: string): Map<string, string[]> {
  const hosts = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [written = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/)
    const address = parseAddress(written)?.toString()
    if (address === undefined) continue
    for (const name of names.flatMap((one) => canonicalName(one) ?? [])) {
      const addresses = hosts.get(name)
      if (addresses === undefined) hosts.set(name, [address])
      else if (!addresses.includes(address) && addresses.length < 2 * maxAddresses) addresses.push(address)
    }
  }
  return hosts
}

/** The name does not exist, or has no address of this family. That is an answer, unlike silence or a server's failure. */
export const isAbsent = (code: string | undefined) => code === 'ENOTFOUND' || code === 'ENODATA'

const failure = (code: string) => Object.assign(new Error('the name cannot be resolved'), { code })

async function recordsOf(asked: Promise<{ address: string; ttl: number }[]>): Promise<Records> {
  try {
    const records = (await asked).slice(0, maxAddresses)
    if (records.length === 0) throw failure('ENODATA')
    const lifetimeMs = Math.min(maxLifetimeMs, ...records.map(({ ttl }) => ttl * 1000))
    return { addresses: records.map(({ address }) => parseAddress(address)?.toString() ?? address), lifetimeMs }
  } catch (error) {
    const { code = 'EUNKNOWN' } = error as NodeJS.ErrnoException
    return { addresses: [], lifetimeMs: partialLifetimeMs, code }
  }
}

async function nothingWithin(milliseconds: number, signal: AbortSignal): Promise<Records> {
  await pause(milliseconds, signal)
  return { addresses: [], lifetimeMs: partialLifetimeMs, code: 'ETIMEOUT' }
}

/**
 * connect(2) of a UDP socket sends nothing, but makes the kernel choose route and source address. Undefined also without IPv6 or a
 * descriptor.
 */
function kernelSourceFor(address: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(familyOf(address) === 6 ? 'udp6' : 'udp4')
    const end = (error?: Error) => {
      resolve(error === undefined ? socket.address().address : undefined)
      socket.close()
    }
    // If the socket cannot be made, Node emits `error`; if it cannot be connected, Node passes the error to the callback, although its types do
    // not say so.
    socket.on('error', end).connect(9, address, end as () => void)
  })
}

function readOr(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
