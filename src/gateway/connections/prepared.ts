/**
 * Connections to the HAG, opened, greeted and joined over the WANs in advance: a client then needs no round trip to set one up, and has all
 * WANs from its first byte. As many are kept as clients came within a second recently, and none while no clients come.
 */

import { Alarm } from '../../base/alarm.js'
import type { Engine } from '../../engine/contract.js'
import { hagProbe } from '../../engine/probe.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { ConnectionFact } from '../facts.js'
import type { Hag, HagPath, Path } from '../model.js'

/** How often to look at the kept ones while clients come. */
const tendMs = 1000
/** The busiest of the last so many seconds decides how many are kept; at least two, because browsers open connections in pairs. */
const demandSeconds = 10
const minWanted = 2
/** After so long without a new client none is kept: an idle line costs nothing. */
const idleMs = 60_000
/** Shorter than a NAT remembers (RFC 5382 REQ-5 asks for hours, some keep two minutes), and than our own HAG waits. */
const longestLifeMs = 90_000
/** If a HAG ends connections that wait too long, they are kept for this share of its patience. */
const shareOfPatience = 0.7
/** With a shorter life they would be renewed more often than used. */
const shortestLifeMs = 2000
/** How long a learned patience counts: the HAG's program may just have ended then. It is learned again if it was right. */
const lifeHoldsMs = { once: 30_000, again: 600_000 }
const pauseAfterFailureMs = 2000
const timeoutMs = 5000

/** With a HAG so near nothing is gained. */
const nearMs = 5

export interface PreparedOptions {
  engine: Pick<Engine, 'prepare' | 'keepPrepared'>
  /** How many are kept at most; 0: none. */
  max: number
  /** The paths to the HAG in use, best first. */
  paths(): readonly HagPath[]
  report(fact: ConnectionFact): void
  log: Pick<Log, 'error'>
  now?: () => number
}

export class PreparedConnections {
  readonly #options: PreparedOptions
  readonly #now: () => number
  /** New clients in each of the last seconds, the current one first. */
  #demand: number[] = []
  #secondBegan = Number.NEGATIVE_INFINITY
  #lastDemand = Number.NEGATIVE_INFINITY
  /** About how many wait for a client on the best path. */
  #kept = 0
  /** The paths of those that are being opened. On a path that has just died that takes until their timeout. */
  readonly #underWay: HagPath[] = []
  #failedAt = Number.NEGATIVE_INFINITY
  /** For each HAG that ended waiting connections: how long they may wait. */
  readonly #lives = new WeakMap<Hag, { ms: number; until: number }>()
  readonly #alarm = new Alarm()

  constructor(options: PreparedOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  /** About how many wait for a client. */
  get kept(): number {
    return this.#kept
  }

  /** Whether a client's connection over this path may use a prepared one. */
  serves(path: Path): boolean {
    return path === this.#first()
  }

  /** So many clients came that may use one. */
  demanded(clients: number): void {
    const first = this.#first()
    if (first === undefined) return
    const now = this.#now()
    const wasIdle = this.#isIdle(now)
    this.#advance(now)
    this.#demand[0] = (this.#demand[0] ?? 0) + clients
    this.#lastDemand = now
    if (wasIdle) this.tend()
    this.#kept = Math.max(0, this.#kept - clients)
    this.#fill(first, now)
  }

  /** To be called when the paths have changed. */
  tend(): void {
    this.#alarm.ring()
  }

  /** Runs until the signal; then none is left. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#tend()
      await this.#alarm.wait(this.#isIdle(this.#now()) ? idleMs : tendMs, signal)
    }
    this.#options.engine.keepPrepared([], 0, 0)
  }

  /** The path for which to keep some. */
  #first(): HagPath | undefined {
    const [first] = this.#options.paths()
    const isNear = first?.minRttMs !== undefined && first.minRttMs < nearMs
    return this.#options.max === 0 || isNear ? undefined : first
  }

  #isIdle(now: number): boolean {
    return now - this.#lastDemand >= idleMs
  }

  #advance(now: number): void {
    const passed = Math.floor((now - this.#secondBegan) / 1000)
    if (passed <= 0) return
    this.#secondBegan = passed > demandSeconds ? now : this.#secondBegan + passed * 1000
    const zeros = Array<number>(Math.min(passed, demandSeconds)).fill(0)
    this.#demand = [...zeros, ...this.#demand].slice(0, demandSeconds)
  }

  /** Closes connections that are old, dead or no longer wanted, and prepares missing ones. */
  #tend(): void {
    const now = this.#now()
    const first = this.#first()
    const paths = first === undefined || this.#isIdle(now) ? [] : this.#options.paths()
    const lifeMs = this.#lifeOf(first, now)
    const { counts, endedMs } = this.#options.engine.keepPrepared(paths.map(probeOf), this.#wanted(now), lifeMs)
    this.#kept = first === undefined ? 0 : (counts[paths.indexOf(first)] ?? 0)
    if (first === undefined) return
    if (endedMs !== undefined) {
      const ms = Math.min(lifeMs, Math.floor(endedMs * shareOfPatience))
      const isAgain = now < (this.#lives.get(first.hag)?.until ?? Number.NEGATIVE_INFINITY) + lifeHoldsMs.again
      this.#lives.set(first.hag, { ms, until: now + lifeHoldsMs[isAgain ? 'again' : 'once'] })
    }
    this.#fill(first, now)
  }

  #fill(path: HagPath, now: number): void {
    if (this.#isIdle(now) || this.#lifeOf(path, now) < shortestLifeMs || now - this.#failedAt < pauseAfterFailureMs) return
    const underWay = this.#underWay.filter((one) => one === path).length
    for (let missing = this.#wanted(now) - this.#kept - underWay; missing > 0; missing--)
      inBackground(this.#options.log, this.#prepare(path))
  }

  #wanted(now: number): number {
    this.#advance(now)
    return Math.min(Math.max(minWanted, ...this.#demand), this.#options.max)
  }

  #lifeOf(path: HagPath | undefined, now: number): number {
    const learned = path === undefined ? undefined : this.#lives.get(path.hag)
    return learned === undefined || now >= learned.until ? longestLifeMs : learned.ms
  }

  async #prepare(path: HagPath): Promise<void> {
    this.#underWay.push(path)
    const result = await this.#options.engine.prepare(probeOf(path)).finally(() => {
      this.#underWay.splice(this.#underWay.indexOf(path), 1)
    })
    if (result.ok && path.protocol === 'mptcp' && result.protocol === 'tcp')
      this.#options.report({ type: 'mptcp-fell-back', bind: path.bind })
    if (path !== this.#first()) return
    if (result.ok) this.#kept++
    else this.#failedAt = this.#now() // what is wrong with it is for the probers to find out
  }
}

const probeOf = ({ hag, bind, protocol }: HagPath) =>
  hagProbe({ hag, bind }, { protocol, connectTimeoutMs: timeoutMs, timeoutMs })
