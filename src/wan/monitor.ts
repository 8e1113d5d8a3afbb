/** Probes the HAGs over every WAN for as long as the gateway runs, and tells when a WAN's health changes. */
import { readFile } from 'node:fs/promises'
import type { Engine, Protocol } from '../native/index.js'
import { hagProbe, type Target } from '../shared/hag-probe.js'
import { pause } from '../shared/pause.js'
import type { Log } from '../telemetry/log.js'
import { type Health, next, nextProbe, type Sign, unknown } from './health.js'

/** A WAN that has a link and an address. */
export interface Line {
  name: string
  interface: string
  address4?: string
  address6?: string
}

/** Fewer bytes than these may be ours: the answers to a probe that came too late. */
const signOfLifeBytes = 4000

/** A probe costs about half a kB: below 2 MB a month. */
const meteredIdleMs = 15 * 60_000

export interface WanMonitorOptions {
  engine: Pick<Engine, 'probe'>
  wans: readonly { name: string; metered: boolean }[]
  /** Whom to ask over a WAN, in this order, until one answers. */
  targets(line: Line): readonly Target[]
  log: Log
  /** A WAN's state is another one; `lost`: so is the set of lost WANs. */
  onChange(lost: boolean): void
  /** Bytes that came in by an interface. */
  received?: (device: string) => Promise<number>
}

export class WanMonitor {
  readonly #options: WanMonitorOptions
  readonly #health: Map<string, Health>
  readonly #protocols = new Map<string, Protocol>()
  #lines = new Map<string, Line>()
  #wake = new AbortController()

  constructor(options: WanMonitorOptions) {
    this.#options = options
    this.#health = new Map(options.wans.map(({ name }) => [name, unknown]))
  }

  /** The WANs that have a link and an address now; the others count as down. */
  useLines(lines: readonly Line[]): void {
    this.#lines = new Map(lines.map((line) => [line.name, line]))
    for (const name of this.#health.keys()) {
      const present = this.#lines.has(name)
      this.#take(name, { type: 'link', present, reason: present ? 'its link is back' : 'no link' })
    }
    this.#wake.abort()
    this.#wake = new AbortController()
  }

  /** WANs whose link is there but over which no HAG answers. */
  get lost(): ReadonlySet<string> {
    return new Set([...this.#health].flatMap(([name, { state, link }]) => (link && state === 'down' ? [name] : [])))
  }

  /** Best first: those in use by round-trip time, then those that may work, then those that do not. */
  inOrder<Known extends { name: string }>(wans: readonly Known[]): Known[] {
    const rank = { up: 0, degraded: 1, probing: 2, down: 3 }
    const cost = ({ name }: Known) => {
      const { state, rttMs } = this.#health.get(name) ?? unknown
      return rank[state] * 1e6 + (state === 'up' ? Math.min(rttMs ?? 1e5, 1e5) : 0)
    }
    return wans
      .map((wan) => ({ wan, at: cost(wan) }))
      .sort((one, other) => one.at - other.at)
      .map(({ wan }) => wan)
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#options.wans.map(({ name, metered }) => this.#follow(name, metered, signal)))
  }

  async #follow(name: string, metered: boolean, signal: AbortSignal): Promise<void> {
    const { received = receivedBytes } = this.#options
    let probedAt = Number.NEGATIVE_INFINITY
    let receivedThen = 0
    while (!signal.aborted) {
      const health = this.#health.get(name) ?? unknown
      const line = this.#lines.get(name)
      const due = nextProbe(health, metered)
      // Without a link there is nothing to do before a change.
      await pause(due?.afterMs ?? 60_000, signal, this.#wake.signal)
      if (signal.aborted || due === undefined || line === undefined || this.#lines.get(name) !== line) continue
      const isQuiet = (await received(line.interface)) - receivedThen < signOfLifeBytes
      if (metered && health.state === 'up' && isQuiet && performance.now() - probedAt < meteredIdleMs) continue
      const sign = await this.#ask(line, due.timeoutMs, health.state === 'up' ? 'tcp' : 'mptcp')
      if (signal.aborted) return
      probedAt = performance.now()
      receivedThen = await received(line.interface)
      if (sign !== undefined && this.#lines.get(name) === line) this.#take(name, sign)
    }
  }

  /** Undefined: no answer, but the line carries something; it is full, not dead. */
  async #ask(line: Line, timeoutMs: number, protocol: Protocol): Promise<Sign | undefined> {
    const { engine, targets, received = receivedBytes } = this.#options
    const before = await received(line.interface)
    let reason = "it has no address of a HAG's family"
    // The kernel joins an MPTCP connection over the other WANs too, which may be metered; so only to find out whether it works.
    const how = { protocol, connectTimeoutMs: Math.ceil(timeoutMs), timeoutMs: Math.ceil(timeoutMs) }
    for (const target of targets(line)) {
      const result = await engine.probe(hagProbe(target, how))
      if (result.ok && protocol === 'mptcp') this.#sayProtocol(line.name, result.protocol)
      if (result.ok) return { type: 'answer', rttMs: result.connectMs }
      // A HAG that refuses us is a fault of the HAG's: the WAN has carried its answer.
      if (result.stage !== 'connect' || result.failure.code === 'ECONNREFUSED') return { type: 'answer', rttMs: timeoutMs / 4 }
      reason =
        result.failure.code === 'ETIMEDOUT' ? 'no HAG answers over it' : `no HAG is reached over it (${result.failure.code})`
    }
    const carried = (await received(line.interface)) - before
    return carried > signOfLifeBytes ? undefined : { type: 'silence', reason }
  }

  #sayProtocol(name: string, protocol: Protocol | undefined): void {
    const before = this.#protocols.get(name) ?? 'mptcp'
    if (protocol === undefined || protocol === before) return
    this.#protocols.set(name, protocol)
    if (protocol === 'mptcp') this.#options.log.info(`WAN ${name} carries MPTCP again`)
    else this.#options.log.warn(`WAN ${name} carries no MPTCP, something on its path removes it: what begins there is not bonded`)
  }

  #take(name: string, sign: Sign): void {
    const before = this.#health.get(name) ?? unknown
    const after = next(before, sign, performance.now())
    this.#health.set(name, after)
    if (before.state === after.state) return
    const text = `WAN ${name} is ${after.state}${after.reason === '' ? '' : `: ${after.reason}`}`
    const fields = after.rttMs === undefined ? {} : { rttMs: Math.round(after.rttMs) }
    if (after.state === 'down') this.#options.log.warn(text, fields)
    else this.#options.log.info(text, fields)
    const isLost = ({ link, state }: Health) => link && state === 'down'
    this.#options.onChange(isLost(before) !== isLost(after))
  }
}

async function receivedBytes(device: string): Promise<number> {
  const text = await readFile(`/proc/self/net/dev`, 'utf8').catch(() => '')
  const line = text.split('\n').find((one) => one.trimStart().startsWith(`${device}:`))
  return Number(line?.split(':')[1]?.trim().split(/\s+/)[0] ?? 0)
}
