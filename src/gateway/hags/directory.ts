/** Which HAGs there are, and which comes first: from addresses in the config, and from names that are looked up repeatedly. */

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { formatSocketAddress, parseAddress } from '../../base/address.js'
import type { Alarm } from '../../base/alarm.js'
import { pause } from '../../base/pause.js'
import { askServers, NameResolver, type Source } from '../../base/resolve.js'
import type { HagEntry } from '../../config/schema.js'
import { credentialsOf } from '../../engine/probe.js'
import type { Emit } from '../../telemetry/events.js'
import type { RankedHag } from '../facts.js'
import type { Hag } from '../model.js'
import type { Pace } from '../pace.js'

/** How long we do not ask again. A resolver keeps an answer for its TTL anyway. */
const refreshMs = 60_000
/** After a failed lookup, or if no HAG can be used, because the name may lead to another one by now. */
const retryMs = 5000
/** An unreachable resolver must not hold up the start. */
const lookupTimeoutMs = 5000
const defaultPort = 1080
/** How many names of an SRV answer to use. It may have a thousand, and each costs a lookup and a HAG to probe. */
const maxServices = 16

/** Without an answer for so long, the question is also asked over the next WAN, because the system's may be dead. */
const nextWanMs = 300

/** Looks a name up from an address of ours; tests pass their own. Rejects with a system error. */
export interface Names {
  addresses(name: string, signal: AbortSignal, from?: Source): Promise<readonly string[]>
  /** RFC 2782. */
  services(
    name: string,
    signal: AbortSignal,
    from?: Source,
  ): Promise<{ name: string; port: number; priority: number; weight: number }[]>
}

export interface HagEntryWithPassword extends HagEntry {
  password?: string
}

interface Ranked {
  hag: Hag
  /** The config entry's priority, then the SRV record's. */
  priority: readonly [number, number]
  weight: number
}

/**
 * The HAGs of a config: those with an address from the beginning, those with a name once it was looked up. If a lookup fails, the known
 * ones stay.
 */
export class HagDirectory {
  readonly #troubles = new Map<string, string>()
  /** The last answer for each name. */
  readonly #answers = new Map<string, readonly unknown[]>()
  /** The names of the last refresh; they may change every time. */
  readonly #asked = new Set<string>()
  #hags: readonly RankedHag[] = []
  readonly #alarm: Alarm

  constructor(
    private readonly options: {
      entries: readonly HagEntryWithPassword[]
      emit: Emit
      pace: Pace
      names?: Names
      /** The WANs' addresses. Names are looked up by the system's route, and then over each WAN. */
      sources?: () => readonly Source[]
      /** Only this decides which of several HAGs of one priority the gateway chooses. */
      identity?: string
    },
  ) {
    this.#alarm = options.pace.alarm()
    this.#use(options.entries.flatMap((entry, index) => rankAddress(entry, entry.priority ?? index)))
  }

  /** Best first, without regard to families. HAGs that stay keep their objects. */
  get hags(): readonly RankedHag[] {
    return this.#hags
  }

  /** Whether a name could not be looked up. */
  get isTroubled(): boolean {
    return this.#troubles.size > 0
  }

  /** Looks up all names. True if the HAGs, their order or their priorities have changed. Never rejects. */
  async refresh(): Promise<boolean> {
    const { entries } = this.options
    this.#asked.clear()
    const found = await Promise.all(entries.map((entry, index) => this.#rank(entry, entry.priority ?? index)))
    for (const kept of [this.#troubles, this.#answers])
      for (const name of kept.keys()) if (!this.#asked.has(name)) kept.delete(name)
    return this.#use(found.flat())
  }

  #use(found: readonly Ranked[]): boolean {
    const { identity = machineIdentity() } = this.options
    const textOf = ({ hag, priority }: RankedHag) => `${formatSocketAddress(hag)} ${priority}`
    const before = new Map(this.#hags.map(({ hag }) => [formatSocketAddress(hag), hag]))
    const next = new Map<string, RankedHag>()
    for (const { hag, priority } of inOrder(found, identity)) {
      const key = formatSocketAddress(hag)
      if (!next.has(key)) next.set(key, { hag: before.get(key) ?? hag, priority: priority.join('.') })
    }
    const hags = [...next.values()]
    const isChanged = hags.map(textOf).join() !== this.#hags.map(textOf).join()
    if (isChanged) this.#hags = hags
    return isChanged
  }

  /** To be called when a lookup that failed may succeed now. */
  refreshSoon(): void {
    if (this.isTroubled) this.#alarm.ring()
  }

  /**
   * Looks up names again until the signal, sooner if no HAG can be used, and calls back after a change. Returns at once if there are no
   * names.
   */
  async run(options: { onChange(): void; isUrgent(): boolean }, signal: AbortSignal): Promise<void> {
    if (this.options.entries.every(({ name }) => name === undefined)) return
    let lookedAt = performance.now()
    while (!signal.aborted) {
      const isUrgent = () => this.isTroubled || options.isUrgent()
      await this.#alarm.wait(isUrgent() ? retryMs : this.options.pace.after(retryMs), signal)
      const isDue = isUrgent() || performance.now() - lookedAt >= refreshMs
      if (signal.aborted || !isDue) continue
      lookedAt = performance.now()
      if (!(await this.refresh())) continue
      options.onChange()
    }
  }

  async #rank(entry: HagEntryWithPassword, priority: number): Promise<readonly Ranked[]> {
    const { name, port = defaultPort, weight } = entry
    if (name === undefined) return rankAddress(entry, priority)
    const credentials = credentialsOf(entry)
    const names = this.options.names ?? systemNames
    const isService = name.startsWith('_')
    const services = isService
      ? await this.#lookUp(name, (signal, from) => names.services(name, signal, from))
      : [{ name, port, priority: 0, weight }]
    const found = await Promise.all(
      services
        // RFC 2782: the target "." means that there is no such service.
        .filter((service) => service.name !== '' && service.name !== '.')
        .sort((one, other) => one.priority - other.priority)
        .slice(0, maxServices)
        .map(async (service) => {
          const addresses = await this.#lookUp(service.name, (signal, from) => names.addresses(service.name, signal, from))
          return addresses.map((one) => ({
            hag: { address: parseAddress(one)?.toString() ?? one, port: service.port, ...credentials },
            priority: [priority, service.priority] as const,
            weight: service.weight,
          }))
        }),
    )
    return found.flat()
  }

  /** The answer or, if the lookup fails, the last answer. A trouble is said once. */
  async #lookUp<Answer>(name: string, ask: Asking<readonly Answer[]>): Promise<readonly Answer[]> {
    this.#asked.add(name)
    try {
      const answer = await inTime((signal) => overEach([undefined, ...(this.options.sources?.() ?? [])], ask, signal))
      if (this.#troubles.delete(name)) this.options.emit({ type: 'hag-lookup', name })
      this.#answers.set(name, answer)
      return answer
    } catch (error) {
      const { code = (error as Error).message } = error as NodeJS.ErrnoException
      // Once for each trouble, not for each try.
      if (this.#troubles.get(name) !== code) this.options.emit({ type: 'hag-lookup', name, code })
      this.#troubles.set(name, code)
      return (this.#answers.get(name) ?? []) as readonly Answer[]
    }
  }
}

function rankAddress(entry: HagEntryWithPassword, priority: number): readonly Ranked[] {
  const { address, port = defaultPort, weight } = entry
  if (address === undefined) return []
  return [{ hag: { address, port, ...credentialsOf(entry) }, priority: [priority, 0], weight }]
}

/**
 * Lower priorities first. Within one priority a gateway always prefers the same HAG, so that a household keeps its public address, and many
 * gateways are distributed by weight (weighted rendezvous hashing).
 */
export function inOrder(ranked: readonly Ranked[], identity: string): Ranked[] {
  return ranked
    .map((one) => ({ ...one, score: score(one, identity) }))
    .sort((one, two) => one.priority[0] - two.priority[0] || one.priority[1] - two.priority[1] || one.score - two.score)
}

/** Exponentially distributed with the weight as its rate: the probability to be the smallest is proportional to the weight. */
function score({ hag, weight }: Ranked, identity: string): number {
  const hash = createHash('sha256')
    .update(`${identity} ${formatSocketAddress(hag)}`)
    .digest()
  const uniform = (hash.readUIntBE(0, 6) + 1) / (2 ** 48 + 1)
  // RFC 2782: servers of weight 0 should hardly ever be chosen.
  return -Math.log(uniform) / Math.max(weight, 0.001)
}

function machineIdentity(): string {
  try {
    return readFileSync('/etc/machine-id', 'utf8').trim() || hostname()
  } catch {
    return hostname()
  }
}

const resolver = new NameResolver()
const systemNames: Names = {
  addresses: (name, signal, from) => resolver.addresses(name, signal, from),
  services: (name, signal, from) => askServers({ from }, signal, (resolver) => resolver.resolveSrv(name)),
}

type Asking<Answer> = (signal: AbortSignal, from?: Source) => Promise<Answer>

/** The first answer. If all reject, rejects with the error of the first one that was asked. */
async function overEach<Answer>(
  sources: readonly (Source | undefined)[],
  ask: Asking<Answer>,
  signal: AbortSignal,
): Promise<Answer> {
  const asked = sources.map(async (from, index) => {
    await pause(index * nextWanMs, signal)
    return ask(signal, from)
  })
  try {
    return await Promise.any(asked)
  } catch (error) {
    throw (error as AggregateError).errors[0]
  }
}

async function inTime<Value>(begin: (signal: AbortSignal) => Promise<Value>): Promise<Value> {
  const over = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })), lookupTimeoutMs)
  })
  try {
    return await Promise.race([begin(over.signal), late])
  } finally {
    clearTimeout(timer)
    over.abort()
  }
}
