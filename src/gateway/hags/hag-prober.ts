/**
 * Probes every HAG while the gateway runs, unless something else has recently: greetings, and now and then a whole CONNECT over each WAN.
 * It reports facts; steering decides what they mean.
 */

import type { Alarm } from '../../base/alarm.js'
import { pause } from '../../base/pause.js'
import type { Engine, ProbeResult } from '../../engine/contract.js'
import { hagProbe } from '../../engine/probe.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { Fact } from '../facts.js'
import type { Probed } from '../hag-facts.js'
import { troubleOf } from '../hag-troubles.js'
import { type Hag, isSameHag, type PathAddress, type WanLink } from '../model.js'
import type { Pace } from '../pace.js'
import { examine } from './capabilities.js'
import { relayedOver } from './users.js'

/** Time between two probes of a kind. */
const minSpacingMs = 100
/** How often to check that the WAN of a probe is still usable. */
const tickMs = 100
/** For each step of a probe: longer than a round trip and a short queue, shorter than the second SYN. */
const patience = { roundTrips: 3, minMs: 200, unknownMs: 1000, connectMs: 5000 }
/**
 * A full up-link drops most packets of new connections: so long enough for a second and a third SYN (after 1 s and 3 s, RFC 6298 section
 * 2).
 */
const busyPatienceMs = 3500

/** What is known of a HAG. */
export interface KnownHag {
  readonly hag: Hag
  readonly health: { readonly state: string; readonly misses: number }
  readonly isBusy: boolean
  readonly isBroken: boolean
  readonly askedAt: number
}

export interface HagProberOptions<Known extends KnownHag> {
  engine: Pick<Engine, 'probe' | 'inspect' | 'connect' | 'stats'>
  pace: Pace
  hags(): readonly Known[]
  /** When a greeting, or a whole CONNECT, is to be asked for; it may be long ago, and infinite if not before something changes. */
  greetingDueAt(hag: Known): number
  requestDueAt(hag: Known): number
  isAdmissionDue(hag: Hag, link: WanLink): boolean
  /** Whether it is known to refuse us from that address. */
  isRefused(hag: Hag, bind: string): boolean
  /** All of its family, best first; those that are usable, the cheap ones first; and the one over which to ask it. */
  links(hag: Hag): readonly WanLink[]
  linksByCost(hag: Hag): readonly WanLink[]
  cheapestLink(hag: Hag): WanLink | undefined
  report(fact: Fact): void
  reportHag(probed: Probed): void
  /** A probe had its answer over this path. */
  onAnswered(path: PathAddress): void
  log: Pick<Log, 'error'>
  /** Tests pass their own. */
  examine?: typeof examine | undefined
}

export interface HagAnswer {
  hag: Hag
  path: WanLink
  result: ProbeResult
}

/** What is under way. */
interface Memory {
  isAsking: boolean
  isChecking: boolean
  /** When it was asked for a greeting, and for a CONNECT. */
  askedAt: number
  checkedAt: number
}

export class HagProber<Known extends KnownHag> {
  readonly #options: HagProberOptions<Known>
  readonly #memories = new WeakMap<Hag, Memory>()
  readonly #alarm: Alarm

  constructor(options: HagProberOptions<Known>) {
    this.#options = options
    this.#alarm = options.pace.alarm()
  }

  /** To be called when known things have changed: something may be due. */
  look(): void {
    this.#alarm.ring()
  }

  /** Asks these over every WAN, all at once; resolves with the answers. */
  async askAll(timeoutMs: number, hags: readonly Hag[], onAnswer: (answer: HagAnswer) => void = () => {}): Promise<HagAnswer[]> {
    const pairs = hags.flatMap((hag) => this.#options.links(hag).map((path) => ({ hag, path })))
    const answers = await Promise.all(
      pairs.map(async ({ hag, path }) => {
        const answer = { hag, path, result: await this.#ask(hag, path, timeoutMs, 'mptcp') }
        onAnswer(answer)
        return answer
      }),
    )
    for (const { hag } of this.#options.hags()) {
      const own = answers.filter((one) => isSameHag(one.hag, hag))
      const { result } = own[0] ?? {}
      if (result?.ok === false && own.every((one) => !one.result.ok && !isStranger(one.result)))
        this.#options.report({ type: 'hag-unreachable', hag, reason: troubleOf(hag, result) })
    }
    return answers
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { hags } = this.#options
    while (!signal.aborted) {
      const nextAt = Math.min(...hags().map((one) => this.#askIfDue(one, signal)))
      await this.#alarm.wait(Math.max(nextAt - performance.now(), 0), signal)
    }
  }

  /** Returns when to look at it again. */
  #askIfDue(one: Known, signal: AbortSignal): number {
    const { greetingDueAt, requestDueAt, log } = this.#options
    const memory = this.#memory(one.hag)
    const now = performance.now()
    // Beside the greetings, because over a WAN that has just died it takes long. After an immediate failure there is a pause.
    const requestAt = memory.isChecking ? Number.POSITIVE_INFINITY : Math.max(requestDueAt(one), memory.checkedAt + minSpacingMs)
    const greetingAt = memory.isAsking ? Number.POSITIVE_INFINITY : Math.max(greetingDueAt(one), memory.askedAt + minSpacingMs)
    if (requestAt <= now) {
      memory.isChecking = true
      memory.checkedAt = now
      const checked = this.#check(one, signal).finally(() => {
        memory.isChecking = false
        this.look()
      })
      inBackground(log, checked)
    }
    if (greetingAt <= now) {
      memory.isAsking = true
      memory.askedAt = now
      const asked = this.#greet(one).finally(() => {
        memory.isAsking = false
        this.look()
      })
      inBackground(log, asked)
    }
    return Math.min(...[requestAt, greetingAt].filter((at) => at > now))
  }

  #memory(hag: Hag): Memory {
    const never = Number.NEGATIVE_INFINITY
    const memory = this.#memories.get(hag) ?? { isAsking: false, isChecking: false, askedAt: never, checkedAt: never }
    this.#memories.set(hag, memory)
    return memory
  }

  async #greet({ hag, health, isBusy }: KnownHag): Promise<void> {
    const { cheapestLink, linksByCost, links, report, reportHag } = this.#options
    const first = cheapestLink(hag)
    if (first === undefined) return
    report({ type: 'hag-asked', hag, about: 'greeting' })
    if (health.misses === 0 && !isBusy) {
      const answer = await this.#ask(hag, first, patienceOf(first))
      if (answer.ok || isStranger(answer)) return
    }
    // The WAN may be the reason, so ask over all usable WANs at once; over lost ones every HAG is silent.
    const usable = linksByCost(hag)
    const all = usable.length > 0 ? usable : links(hag)
    const askedAt = performance.now()
    const patienceMs = (path: WanLink) => Math.max(patienceOf(path), isBusy ? busyPatienceMs : 0)
    const answers = await Promise.all(all.map((path) => this.#ask(hag, path, patienceMs(path))))
    // If it answers over one WAN, something on another WAN's path refuses us there.
    const refusal = answers.findIndex((answer) => !isSilence(answer))
    const [result, path] = [answers[refusal], all[refusal]]
    if (result !== undefined && path !== undefined && !answers.some((one) => one.ok || isStranger(one)))
      reportHag({ hag, path, result, askedAt, isPatient: false })
  }

  /** It answers greetings, but does it work, and for all our addresses? Results over a WAN that died meanwhile do not count. */
  async #check({ hag, isBroken }: KnownHag, signal: AbortSignal): Promise<void> {
    const { engine, linksByCost, isAdmissionDue, report } = this.#options
    const ask = this.#options.examine ?? examine
    report({ type: 'hag-asked', hag, about: 'request' })
    const before = isBroken ? [] : (await relayedOver(engine, hag)).map(({ connection }) => connection)
    const asked = new Set<string>()
    const turnedAway: WanLink[] = []
    let trouble: string | undefined
    let works = false
    // The WANs may change meanwhile.
    const next = () =>
      linksByCost(hag).find((link) => !signal.aborted && !asked.has(link.bind) && (!works || isAdmissionDue(hag, link)))
    for (let path = next(); path !== undefined; path = next()) {
      const { bind } = path
      asked.add(bind)
      report({ type: 'admission-asked', hag, bind })
      const finding = await this.#whileUsable(hag, path, () => ask(engine, { hag, bind }, { timeoutMs: patience.connectMs }))
      if (finding?.state === 'works') {
        const pipelines = works ? undefined : finding.pipelines
        report({ type: 'hag-request-answered', hag, path, isRefused: finding.isRefused, pipelines })
        works = true
      } else if (finding?.state === 'turned-away') turnedAway.push(path)
      // Otherwise something on the path may have said so.
      else if (finding?.state === 'broken') trouble ??= finding.trouble
    }
    for (const path of turnedAway) await this.#confirmTurnedAway(hag, path, works)
    if (signal.aborted || works || turnedAway.length > 0) return
    // What users' requests prove counts more than our own failed ones.
    const isServing = async () =>
      (await relayedOver(engine, hag)).some(({ connection, received }) => received > 0 && !before.includes(connection))
    if (trouble !== undefined && !(await isServing())) return report({ type: 'hag-request-broken', hag, reason: trouble })
    if (trouble === undefined) report({ type: 'hag-request-unknown', hag })
  }

  /** A HAG that was just about to end closes connections, too, so ask again. */
  async #confirmTurnedAway(hag: Hag, path: WanLink, worksElsewhere: boolean): Promise<void> {
    const result = await this.#ask(hag, path, patienceOf(path))
    const isClosed = !result.ok && result.stage === 'greeting' && result.failure.code === 'ECONNRESET'
    if (isClosed && worksElsewhere) this.#options.report({ type: 'hag-turned-away', hag, path, how: 'closes' })
  }

  /** Undefined if the path is lost before there is an answer. */
  async #whileUsable<T>(hag: Hag, path: PathAddress, ask: () => Promise<T>): Promise<T | undefined> {
    const answered = new AbortController()
    const isUsable = () => this.#options.linksByCost(hag).some(({ wan, bind }) => wan === path.wan && bind === path.bind)
    const lost = async () => {
      while (!answered.signal.aborted && isUsable()) await pause(tickMs, answered.signal)
    }
    try {
      const answer = await Promise.race([ask(), lost()])
      return isUsable() ? (answer ?? undefined) : undefined
    } finally {
      answered.abort()
    }
  }

  /** Reports the answer, except a refusal: only all answers together tell who refuses. */
  async #ask(hag: Hag, path: WanLink, timeoutMs: number, as = 'tcp' as 'tcp' | 'mptcp'): Promise<ProbeResult> {
    const { engine, isRefused, onAnswered, reportHag } = this.#options
    const how = { protocol: as === 'mptcp' ? path.protocol : as, connectTimeoutMs: timeoutMs, timeoutMs }
    const askedAt = performance.now()
    const result = await engine.probe(hagProbe({ hag, bind: path.bind }, how))
    if (result.ok) onAnswered(path)
    // A HAG that closes connections from this address is alive all the same.
    const closesToUs = !result.ok && result.stage === 'greeting' && isRefused(hag, path.bind)
    if (result.ok || isStranger(result) || (isSilence(result) && !closesToUs))
      reportHag({ hag, path, result, askedAt, isPatient: timeoutMs >= busyPatienceMs })
    return result
  }
}

const patienceOf = ({ rttMs }: WanLink) =>
  Math.ceil(rttMs === undefined ? patience.unknownMs : Math.max(patience.roundTrips * rttMs, patience.minMs))

const isStranger = (result: ProbeResult) => !result.ok && result.failure.code === 'NOT_A_CLIENT'

const isSilence = (result: ProbeResult) => !result.ok && !['ECONNREFUSED', 'EACCES', 'NOT_A_CLIENT'].includes(result.failure.code)
