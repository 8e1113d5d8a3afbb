/**
 * Host names to addresses, without getaddrinfo: that one cannot be cancelled, and holds one of the four threads that also write the log
 * for as long as a name server is silent. Numbers and the hosts file as there; no other source of nsswitch.conf (mDNS, LDAP).
 */
import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import { readFileSync, statSync } from 'node:fs'
import { domainToASCII } from 'node:url'
import { familyOf, isSpecialPurpose, parseAddress } from './address.js'
import { pause } from './pause.js'

/** The first wait for an answer; it doubles with each try, so that a silent server costs 7 s. */
const firstTryMs = 1000
const tries = 3
/** RFC 8305 section 3: how long IPv4's addresses wait for those of IPv6, whose questions some servers never answer. */
const resolutionDelayMs = 50
/** A record may live for a day; nobody should have to restart us because a server moved. */
const maxLifetimeMs = 300_000
/** For an answer that lacks a family because nothing came. */
const partialLifetimeMs = 5000
/** Of each family. */
const maxAddresses = 16

export interface Found {
  /** Canonical text; those of the family that should be tried first come first. */
  addresses: readonly string[]
  /** For how long it may be kept. */
  lifetimeMs: number
}

/** Where questions come from, and so the WAN that they leave by. */
export interface Source {
  address4?: string
  address6?: string
}

export interface ResolverOptions {
  /** Tests pass their own. */
  hostsFile?: string
  resolvConf?: string
  /** `address:port`; default: what resolv.conf says at the time of each question. */
  servers?: readonly string[]
  /** The source address that the kernel would take; undefined where it has no route. */
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
  /** Of the hosts file as it was read. */
  #version = ''

  constructor({ hostsFile = '/etc/hosts', resolvConf = '/etc/resolv.conf', ...more }: ResolverOptions = {}) {
    this.#options = { hostsFile, resolvConf, sourceFor: kernelSourceFor, ...more }
  }

  /** What a canonical name stands for without asking anybody: a number, or an entry of the hosts file. */
  known(name: string): readonly string[] | undefined {
    const address = parseAddress(name)?.toString()
    if (address !== undefined) return [address]
    this.#readHosts()
    return this.#hosts.get(name)
  }

  /** Asks the name servers, from these addresses of ours; rejects with a `code` of c-ares, when the signal is aborted with `ECANCELLED`. */
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

  /** `known` or `ask`, for a name as somebody wrote it. */
  async addresses(text: string, signal: AbortSignal, from?: Source): Promise<readonly string[]> {
    const name = canonicalName(text)
    if (name === undefined) throw failure('ENOTFOUND')
    return this.known(name) ?? (await this.ask(name, signal, from)).addresses
  }

  /** A name with dots is a full one (RFC 1928: "fully-qualified"); one without is looked for in the domains of `search`. */
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

  /** IPv6 first where the kernel would use it as RFC 6724 does: not without a route, and not from a private address to a public one. */
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

/** What a name server says that cannot tell. */
const isRefusal = (code: string | undefined) => ['ESERVFAIL', 'EREFUSED', 'ENOTIMP', 'EFORMERR'].includes(code ?? '')

/**
 * Asks by a c-ares channel of its own: it reads resolv.conf anew, can be cancelled alone, and has a source port that nobody can guess.
 * Where a name server says that it cannot tell, those behind it are asked, as by getaddrinfo: Node's c-ares goes on only after silence.
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
 * The one spelling of a host name: lower case, without a dot at its end, IDN as A-labels. A number is written as its address, as
 * inet_aton(3) reads it (`127.1`, `0x7f000001`): so browsers do (URL Standard, section 3.5), and so what it leads to can be checked.
 * Undefined for what is no host name.
 */
export function canonicalName(text: string): string | undefined {
  // Nearly all of them, in a microsecond; hosts files may have a hundred thousand.
  if (plainName.test(text) && text.length <= 253 && !text.includes('xn--')) return text
  const address = parseAddress(text)?.toString()
  if (address !== undefined) return address
  // Of ASCII only what names are made of: a URL's other characters would be decoded, or end the name.
  if (!/^[\w.\-\u0080-\u{10ffff}]+$/u.test(text)) return undefined
  const name = domainToASCII(text).replace(/\.$/, '')
  return name.length <= 253 && name.split('.').every((label) => /^[\w-]{1,63}$/.test(label)) ? name : undefined
}

/** The last label of a number begins with a digit. */
const plainName = /^(?:[a-z\d_-]{1,63}\.)*[a-z][a-z\d_-]{0,62}$/

/** The domains of the last `search` or `domain` line (resolv.conf(5)). */
export function searchDomains(text: string): string[] {
  const last = [...text.matchAll(/^(?:search|domain)[ \t]+(.*)$/gm)].at(-1)?.[1] ?? ''
  return last.split(/\s+/).flatMap((domain) => canonicalName(domain) ?? [])
}

/** Addresses by canonical name (hosts(5)). */
export function parseHosts(text: string): Map<string, string[]> {
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

/** The name is not there, or has no address of this family: an answer, unlike silence or a server's trouble. */
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

/** Connecting a UDP socket sends nothing, and has the kernel choose route and source; undefined also without IPv6 or a descriptor. */
function kernelSourceFor(address: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(familyOf(address) === 6 ? 'udp6' : 'udp4')
    const end = (error?: Error) => {
      resolve(error === undefined ? socket.address().address : undefined)
      socket.close()
    }
    // A socket that cannot be made is an event; where it cannot be connected Node calls back with the error, whatever its types say.
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
