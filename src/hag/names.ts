/**
 * Looks up the names that clients ask for: each name once at a time, kept while its records are valid, and limited for each client, so that
 * silent name servers hold up only those who ask for their names.
 */
import { parseAddress } from '../base/address.js'
import { canonicalName, type Found, isAbsent, NameResolver } from '../base/resolve.js'
import type { Emit } from '../telemetry/events.js'

/** Lookups at once for one client; its next ones wait. */
const maxPerClient = 16
/** Lookups at once for all clients. Each takes at most two descriptors. */
const maxAtOnce = 256
const maxKept = 1000
const sayAgainMs = 60_000
/** How long to remember that a name does not exist, and that no server answered. */
const absentMs = 5000
const failedMs = 1000

export interface NamesOptions {
  emit: Emit
  /** Less than 256 if descriptors are scarce. */
  atOnce?: number
  /** Tests pass their own. */
  resolver?: Pick<NameResolver, 'known' | 'ask'>
  now?: () => number
}

interface Answer {
  addresses: readonly string[]
  /** Why there are none. */
  code?: string
}

interface Asker {
  name: string
  client: string
  settle(answer: Answer): void
}

/** A name that is being looked up. */
interface Job {
  name: string
  /** The client for whom it began. */
  client: string
  askers: Set<Asker>
  cancel: AbortController
}

interface Client {
  jobs: Set<Job>
  waiting: Set<Asker>
}

export class Names {
  readonly #resolver: Pick<NameResolver, 'known' | 'ask'>
  readonly #now: () => number
  readonly #emit: Emit
  readonly #atOnce: number
  readonly #perClient: number
  /** In the order in which they came. */
  readonly #kept = new Map<string, Answer & { until: number }>()
  readonly #jobs = new Map<string, Job>()
  readonly #clients = new Map<string, Client>()
  #saidAt = Number.NEGATIVE_INFINITY

  constructor({ emit, atOnce = maxAtOnce, resolver = new NameResolver(), now = () => performance.now() }: NamesOptions) {
    this.#emit = emit
    this.#resolver = resolver
    this.#now = now
    this.#atOnce = Math.min(atOnce, maxAtOnce)
    this.#perClient = Math.min(maxPerClient, Math.ceil(this.#atOnce / 4))
  }

  /** IP addresses, the better family's first. Rejects with a `code`; at once with `ECANCELLED` when the signal is aborted. */
  async resolve(host: string, clientAddress: string, signal: AbortSignal): Promise<readonly string[]> {
    const name = canonicalName(host)
    if (name === undefined) throw failure('ENOTFOUND')
    const known = this.#resolver.known(name)
    if (known !== undefined) return known
    const { addresses, code } = await this.#answer(name, clientKey(clientAddress), signal)
    if (code !== undefined) throw failure(code)
    return addresses
  }

  #answer(name: string, client: string, signal: AbortSignal): Promise<Answer> {
    if (signal.aborted) return Promise.resolve({ addresses: [], code: 'ECANCELLED' })
    return new Promise((resolve) => {
      const leave = () => {
        this.#leave(asker)
        resolve({ addresses: [], code: 'ECANCELLED' })
      }
      const asker: Asker = {
        name,
        client,
        settle(answer) {
          signal.removeEventListener('abort', leave)
          resolve(answer)
        },
      }
      signal.addEventListener('abort', leave, { once: true })
      this.#ask(asker)
    })
  }

  #ask(asker: Asker): void {
    const { name, client } = asker
    const kept = this.#kept.get(name)
    if (kept !== undefined && kept.until > this.#now()) {
      asker.settle(kept)
      return
    }
    const job = this.#jobs.get(name)
    if (job !== undefined) {
      job.askers.add(asker)
      return
    }
    const { jobs, waiting } = this.#client(client)
    if (jobs.size >= this.#perClient) {
      waiting.add(asker)
      this.#sayThatOneWaits(client)
      return
    }
    while (this.#jobs.size >= this.#atOnce) this.#cancelGreediest()
    this.#begin(asker)
  }

  #begin(asker: Asker): void {
    const { name, client } = asker
    const job: Job = { name, client, askers: new Set([asker]), cancel: new AbortController() }
    this.#jobs.set(name, job)
    this.#client(client).jobs.add(job)
    this.#resolver.ask(name, job.cancel.signal).then(
      ({ addresses, lifetimeMs }: Found) => this.#end(job, { addresses }, lifetimeMs),
      ({ code = 'EUNKNOWN' }: NodeJS.ErrnoException) =>
        this.#end(job, { addresses: [], code }, isAbsent(code) ? absentMs : failedMs),
    )
  }

  #end(job: Job, answer: Answer, lifetimeMs: number): void {
    if (!this.#forget(job)) return
    if (lifetimeMs > 0) this.#keep(job.name, answer, lifetimeMs)
    for (const asker of job.askers) asker.settle(answer)
    this.#goOn(job.client)
  }

  /** Makes room: ends the oldest lookup of the client with the most. */
  #cancelGreediest(): void {
    let greediest: Client | undefined
    for (const one of this.#clients.values()) if (one.jobs.size > (greediest?.jobs.size ?? 0)) greediest = one
    const [oldest] = greediest?.jobs ?? []
    if (oldest === undefined) return
    this.#cancel(oldest)
    for (const asker of oldest.askers) {
      if (asker.client === oldest.client) asker.settle({ addresses: [], code: 'EBUSY' })
      // Other clients that wait for the name must not suffer, so it is asked again for them.
      else this.#ask(asker)
    }
    this.#tidy(oldest.client)
  }

  #leave(asker: Asker): void {
    const job = this.#jobs.get(asker.name)
    if (job?.askers.delete(asker)) {
      if (job.askers.size > 0) return
      this.#cancel(job)
      this.#goOn(job.client)
      return
    }
    this.#clients.get(asker.client)?.waiting.delete(asker)
    this.#tidy(asker.client)
  }

  #cancel(job: Job): void {
    this.#forget(job)
    job.cancel.abort()
  }

  /** False if it was forgotten before. */
  #forget(job: Job): boolean {
    if (this.#jobs.get(job.name) !== job) return false
    this.#jobs.delete(job.name)
    this.#clients.get(job.client)?.jobs.delete(job)
    return true
  }

  /** Starts lookups of the client that waited for a place. */
  #goOn(key: string): void {
    const client = this.#client(key)
    for (const asker of client.waiting) {
      if (client.jobs.size >= this.#perClient) break
      client.waiting.delete(asker)
      this.#ask(asker)
    }
    this.#tidy(key)
  }

  #tidy(key: string): void {
    const client = this.#clients.get(key)
    if (client?.jobs.size !== 0) return
    this.#clients.delete(key)
    // The client's last lookup was ended to make room, so the waiting ones have to go on here.
    for (const asker of client.waiting) {
      client.waiting.delete(asker)
      asker.settle({ addresses: [], code: 'EBUSY' })
    }
  }

  #client(key: string): Client {
    let client = this.#clients.get(key)
    if (client === undefined) {
      client = { jobs: new Set(), waiting: new Set() }
      this.#clients.set(key, client)
    }
    return client
  }

  #sayThatOneWaits(client: string): void {
    const now = this.#now()
    if (now - this.#saidAt < sayAgainMs) return
    this.#saidAt = now
    const { size: names } = this.#client(client).jobs
    this.#emit({ type: 'client-waits-for-names', client, names })
  }

  #keep(name: string, answer: Answer, lifetimeMs: number): void {
    this.#kept.delete(name)
    this.#kept.set(name, { ...answer, until: this.#now() + lifetimeMs })
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > maxKept && oldest !== undefined) this.#kept.delete(oldest)
  }
}

/** An IPv6 client has a whole /64 of addresses. */
function clientKey(address: string): string {
  const parsed = parseAddress(address)
  if (parsed === undefined || parsed.kind() === 'ipv4') return address
  const words = parsed.toNormalizedString().split(':').slice(0, 4)
  return `${words.join(':')}::/64`
}

const failure = (code: string) => Object.assign(new Error('the name cannot be resolved'), { code })
