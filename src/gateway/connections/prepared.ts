/**
 * Connections to the HAG, opened, greeted and joined over the WANs in advance: a client's connection then costs no round trip to set up,
 * and has all WANs from its first byte. As many are kept as came within a second lately, and none while nobody comes.
 */

import { Alarm } from '../../base/alarm.js'
import type { Engine } from '../../engine/contract.js'
import { hagProbe } from '../../engine/probe.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { ConnectionFact } from '../facts.js'
import type { Hag, HagPath, Path } from '../model.js'

/** How often what is kept is looked at while somebody comes. */
const tendMs = 1000
/** The busiest second of so many last ones says how many are kept; two at least, because browsers open connections in pairs. */
const demandSeconds = 10
const minWanted = 2
/** Without a new client for so long none is kept: an idle line costs nothing. */
const idleMs = 60_000
/** Shorter than what a NAT forgets (RFC 5382 REQ-5 asks for hours, some keep two minutes), and than what our own HAG waits for. */
const longestLifeMs = 90_000
/** A HAG that ends those that wait for longer: so much of its patience is used. */
const shareOfPatience = 0.7
/** Below that they would be renewed more often than they are used. */
const shortestLifeMs = 2000
/** What was learned so may have been the end of that HAG's program, which is another one now; not where it is learned again. */
const lifeHoldsMs = { once: 30_000, again: 600_000 }
const pauseAfterFailureMs = 2000
const timeoutMs = 5000

/** To a HAG as near as this nothing is gained. */
const nearMs = 5

export interface PreparedOptions {
  engine: Pick<Engine, 'prepare' | 'keepPrepared'>
  /** Kept at once; 0: none ever. */
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
  /** About so many wait for a client on the best path. */
  #kept = 0
  /** The paths of those that are being opened. On one that has just died that takes until their time is over. */
  readonly #underWay: HagPath[] = []
  #failedAt = Number.NEGATIVE_INFINITY
  /** Of each HAG that ended connections that only waited: for how long they may. */
  readonly #lives = new WeakMap<Hag, { ms: number; until: number }>()
  readonly #alarm = new Alarm()

  constructor(options: PreparedOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  /** May a client's connection that takes this path use a prepared one? */
  serves(path: Path): boolean {
    return path === this.#first()
  }

  /** So many clients came who may. */
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

  /** The paths are others. */
  tend(): void {
    this.#alarm.ring()
  }

  /** Runs until the signal, and leaves none. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#tend()
      await this.#alarm.wait(this.#isIdle(this.#now()) ? idleMs : tendMs, signal)
    }
    this.#options.engine.keepPrepared([], 0, 0)
  }

  /** The path for which some are kept. */
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

  /** Closes what is old, dead or not wanted any more, and prepares what is missing. */
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
