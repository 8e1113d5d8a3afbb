import { type Family, familyOfAddress, formatSocketAddress } from '../../base/address.js'
import { pause } from '../../base/pause.js'
/** Follows the health of every HAG: what probes over the WANs heard of it, and questions of its own where nobody asked lately. */
import type { Engine, ProbeResult } from '../../engine/contract.js'
import { hagProbe } from '../../engine/probe.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import { troubleOf, turnedAwayBecause } from '../hag-facts.js'
import type { Hag, PathAddress, WanPath } from '../model.js'
import { isBehindFullWan } from '../subflow-signs.js'
import { Admissions, whereOf } from './admission.js'
import { examine } from './capabilities.js'
import { type HagHealth, type HagSign, nextHag, unknownHag } from './health.js'

const tickMs = 100
/** How often each is asked: the one in use while somebody would notice; otherwise where no WAN's probe has; and the others. */
const askMs = { busy: 500, inUse: 1500, spare: 10_000, metered: 15 * 60_000 }
/** A HAG that is down, over a WAN whose volume costs money: a SYN a minute. */
const meteredDownMs = 60_000
/** Whether it does more than greet: a whole CONNECT. */
const connectCheckMs = 5 * 60_000
const meteredCheckMs = 60 * 60_000
/** What one HAG says within so long of another's fall speaks for the WANs. */
const sameTimeMs = 2000
const patience = { roundTrips: 3, leastMs: 200, unknownMs: 1000, connectMs: 5000 }
/** A full up-link drops most of what is new: long enough for a second and a third SYN (after 1 s and 3 s, RFC 6298 section 2). */
const busyPatienceMs = 3500
const acknowledgedMs = 1000
/** A connection that began before that says nothing of what is served now. */
const recentMs = 60_000

interface HagRecord {
  readonly hag: Hag
  health: HagHealth
  /** An answer, or that none came. */
  heardAt: number
  answeredAt: number
  /** The first of the signs in a row that speak against it. */
  missedSince: number
  askedAt: number
  checkedAt: number
  checking: boolean
  /** Takes greeting, request and payload in one go. */
  pipelines: boolean
  /** Greets, but does not do what it is asked: greetings count no more. */
  broken: boolean
  asking: boolean
  /** Silent, but over full up-links: only a question with more patience counts against it. */
  busy: boolean
  /** It fell silent then, and it is not known yet whether that is its death or our WANs. */
  undecidedAt: number | undefined
  /** Since then the Internet was found to answer without it. */
  directAnsweredAt: number | undefined
}

export interface HagProberOptions {
  engine: Pick<Engine, 'probe' | 'inspect' | 'connect' | 'stats'>
  /** Best first. */
  paths(family: Family): readonly WanPath[]
  log: Log
  /** A question got its answer over this path. */
  onPathAnswered(path: WanPath): void
  /** A HAG's state is another one, or the HAGs are. */
  onChange(): void
  /**
   * A HAG that was in use is gone. `refused`: its machine answers, so connections that are dead find out by themselves; `silence`: another
   * HAG answers, or the Internet does without one, so it is not our WANs.
   */
  onDead(hag: Hag, how: 'refused' | 'silence'): void
  /** One that was down answers again. */
  onReturn(hag: Hag): void
}

export class HagProber {
  readonly #options: HagProberOptions
  readonly #admissions: Admissions
  #records: readonly HagRecord[] = []
  /** Aborted where the next look shall be now. */
  #wake = new AbortController()

  constructor(options: HagProberOptions) {
    this.#options = options
    this.#admissions = new Admissions({ log: options.log, onChange: () => options.onChange() })
  }

  /** Best first; what is known of those that stay is kept. */
  useHags(hags: readonly Hag[]): void {
    const known = new Map(this.#records.map((record) => [record.hag, record]))
    this.#records = hags.map(
      (hag) =>
        known.get(hag) ?? {
          hag,
          health: unknownHag,
          heardAt: Number.NEGATIVE_INFINITY,
          askedAt: Number.NEGATIVE_INFINITY,
          answeredAt: Number.NEGATIVE_INFINITY,
          checkedAt: Number.NEGATIVE_INFINITY,
          missedSince: 0,
          checking: false,
          pipelines: false,
          broken: false,
          asking: false,
          busy: false,
          undecidedAt: undefined,
          directAnsweredAt: undefined,
        },
    )
    this.#admissions.keep(hags)
    this.#options.onChange()
  }

  /** Those to use, best first: never one that is down, or that refuses us over all WANs that work. */
  get usable(): readonly Hag[] {
    return this.#there.filter((hag) => {
      const paths = this.#pathsByCost(hag)
      return paths.length === 0 || paths.some(({ bind }) => !this.refuses(hag, bind))
    })
  }

  /** Somebody answers, so that a WAN over which nobody does is to blame. */
  get isAnyThere(): boolean {
    return this.#there.length > 0
  }

  get #there(): readonly Hag[] {
    const inState = (...states: string[]) =>
      this.#records.filter(({ health }) => states.includes(health.state)).map(({ hag }) => hag)
    return [...inState('up', 'unknown'), ...inState('returning')]
  }

  /** It does not serve this address of ours. */
  refuses(hag: Hag, bind: string): boolean {
    return this.#admissions.refuses(hag, bind)
  }

  /** What a probe has found out; no user's connection is made the test. */
  pipelines(hag: Hag): boolean {
    return this.#records.find((record) => record.hag === hag)?.pipelines ?? false
  }

  get all(): readonly Hag[] {
    return this.#records.map(({ hag }) => hag)
  }

  /** HAGs of a family in the order in which a WAN's probe asks them. */
  targets(family: Family): Hag[] {
    const there = this.#there
    const down = this.all.filter((hag) => !there.includes(hag))
    return [...there, ...down].filter((hag) => familyOfAddress(hag.address) === family)
  }

  /** Takes what a probe that asked then (`performance.now`) heard of a HAG. `isPatient`: it has waited for longer than a full up-link takes. */
  recordProbe(hag: Hag, result: ProbeResult, askedAt: number, path: PathAddress, isPatient = false): void {
    const record = this.#records.find((one) => one.hag === hag)
    if (record === undefined) return
    if (result.ok) this.#admissions.greeted(hag, path)
    record.heardAt = performance.now()
    const sign = signOf(hag, result, askedAt, path)
    if (sign?.type === 'answer') {
      record.answeredAt = record.heardAt
      record.busy = false
      this.#decideOnOthers(record)
    }
    // What answers with anything else is not kept from it by a queue.
    const hasTimedOut = !result.ok && result.failure.code === 'ETIMEDOUT'
    if (sign?.type === 'silence' && hasTimedOut && !isPatient && record.health.state !== 'down') {
      inBackground(this.#options.log, this.#judgeSilence(record, sign))
      return
    }
    if (sign?.type === 'silence' && askedAt > (record.directAnsweredAt ?? Number.POSITIVE_INFINITY)) this.#declareDead(record)
    if (sign !== undefined && !(record.broken && sign.type === 'answer')) this.#recordSign(record, sign)
  }

  /** It is there, but takes nothing from this address of ours. `closes`: it says so by ending the connection. */
  recordTurnedAway(hag: Hag, path: PathAddress, how: 'stranger' | 'closes'): void {
    const record = this.#records.find((one) => one.hag === hag)
    if (record === undefined) return
    this.#admissions.turnedAway(hag, path, turnedAwayBecause[how])
    record.heardAt = performance.now()
    record.answeredAt = record.heardAt
    record.busy = false
    this.#decideOnOthers(record)
    if (record.health.state !== 'unknown' && !record.broken) this.#recordSign(record, { type: 'answer' })
  }

  /** It refused a user's request (RFC 1928 section 6, reply 2): was that about the destination, or about us? */
  async recordRefusedRequest(hag: Hag, path: PathAddress): Promise<void> {
    const record = this.#records.find((one) => one.hag === hag)
    if (record === undefined || !this.#admissions.requestRefused(hag, path)) return
    const isServed = (await this.#relayed(hag)).some(
      ({ local, received, ageMs }) => received > 0 && ageMs < recentMs && local.address === path.bind,
    )
    if (isServed) this.#admissions.served(hag, path)
    else this.#admissions.confirm(hag, path)
  }

  /** A connection had trouble with it: it is asked at once, a whole CONNECT where its answer to one was strange. */
  reportTrouble(hag: Hag, about: 'connection' | 'request'): void {
    const record = this.#records.find((one) => one.hag === hag)
    if (record === undefined) return
    record.heardAt = Number.NEGATIVE_INFINITY
    record.askedAt = Math.min(record.askedAt, performance.now() - askMs.busy)
    // At most once a second, whatever the clients meet.
    if (about === 'request') record.checkedAt = Math.min(record.checkedAt, performance.now() - connectCheckMs + 1000)
  }

  /**
   * The Internet answers without a HAG. One that is still silent when it is asked once more is dead: its connections would wait for nothing,
   * and their clients can begin anew.
   */
  recordDirectAnswer(): void {
    for (const record of this.#records) {
      if (record.undecidedAt === undefined || record.directAnsweredAt !== undefined) continue
      record.directAnsweredAt = performance.now()
      this.reportTrouble(record.hag, 'connection')
      record.askedAt = Number.NEGATIVE_INFINITY
      this.#wake.abort()
    }
  }

  /** Asks these over every WAN, all at once; resolves with what each said. One that nobody hears from counts as down. */
  async askAll(timeoutMs: number, hags = this.all, hear: (answer: HagAnswer) => void = () => {}): Promise<HagAnswer[]> {
    const pairs = hags.flatMap((hag) => this.#options.paths(familyOfAddress(hag.address)).map((path) => ({ hag, path })))
    const answers = await Promise.all(
      pairs.map(async ({ hag, path }) => {
        const answer = { hag, path, result: await this.#ask(hag, path, timeoutMs, 'mptcp') }
        hear(answer)
        return answer
      }),
    )
    for (const record of this.#records) {
      const own = answers.filter(({ hag }) => hag === record.hag)
      const { result } = own[0] ?? {}
      if (result?.ok === false && own.every((one) => !one.result.ok && !isStranger(one.result)))
        this.#recordSign(record, { type: 'unfit', reason: troubleOf(record.hag, result) })
    }
    return answers
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const now = performance.now()
      const inUse = this.usable[0]
      for (const record of this.#records) {
        // Beside the other questions: over a WAN that has just died it takes its time.
        if (!record.checking && this.#isCheckDue(record, now)) {
          record.checking = true
          const checked = this.#checkConnect(record, signal).finally(() => {
            record.checking = false
          })
          inBackground(this.#options.log, checked)
        }
        if (record.asking || record.broken || !this.#isDue(record, record.hag === inUse, now)) continue
        record.asking = true
        const asked = this.#probe(record).finally(() => {
          record.asking = false
          // What failed without a wait is left alone for a moment.
          if (performance.now() - record.askedAt >= tickMs) this.#wake.abort()
        })
        inBackground(this.#options.log, asked)
      }
      await pause(tickMs, signal, this.#wake.signal)
      if (this.#wake.signal.aborted) this.#wake = new AbortController()
    }
  }

  #isCheckDue({ hag, health, checkedAt, broken }: HagRecord, now: number): boolean {
    const paths = this.#pathsByCost(hag)
    const [path] = paths
    if (path === undefined) return false
    if (broken) return now - checkedAt >= (path.metered ? meteredDownMs : askMs.inUse)
    if (health.state === 'down') return false
    return now - checkedAt >= checkMs(path) || paths.some((one) => this.#admissions.isDue(hag, one))
  }

  #isDue({ hag, health, heardAt, askedAt, busy }: HagRecord, inUse: boolean, now: number): boolean {
    const path = this.#cheapestPath(hag)
    if (path === undefined) return false
    if ((health.misses > 0 || busy) && health.state !== 'down') return true
    const silentMs = now - Math.max(heardAt, askedAt)
    if (path.metered) return silentMs >= (health.state === 'down' ? meteredDownMs : askMs.metered)
    if (health.state === 'down' || health.state === 'returning') return silentMs >= askMs.inUse
    if (!inUse) return silentMs >= askMs.spare
    return silentMs >= (this.#options.engine.stats().relaying > 0 ? askMs.busy : askMs.inUse)
  }

  async #probe(record: HagRecord): Promise<void> {
    const { hag, health, busy } = record
    const first = this.#cheapestPath(hag)
    if (first === undefined) return
    record.askedAt = performance.now()
    if (health.misses === 0 && !busy) {
      const answer = await this.#ask(hag, first, patienceOf(first))
      if (answer.ok || isStranger(answer)) return
    }
    // It may be the WAN: over all of them at once. Those that are lost would be silent whatever the HAG does.
    const usable = this.#pathsByCost(hag)
    const all = usable.length > 0 ? usable : this.#options.paths(familyOfAddress(hag.address))
    const askedAt = performance.now()
    const patienceMs = (path: WanPath) => Math.max(patienceOf(path), busy ? busyPatienceMs : 0)
    const answers = await Promise.all(all.map((path) => this.#ask(hag, path, patienceMs(path))))
    // Where it answers over one WAN, it is somebody on the way of another who refuses us.
    const refusal = answers.findIndex((answer) => !isSilence(answer))
    const [result, path] = [answers[refusal], all[refusal]]
    if (result !== undefined && path !== undefined && !answers.some((one) => one.ok || isStranger(one)))
      this.recordProbe(hag, result, askedAt, path)
  }

  /** Greets, but does it work, and for all addresses of ours? What came over a WAN that died meanwhile does not count. */
  async #checkConnect(record: HagRecord, signal: AbortSignal): Promise<void> {
    const { hag } = record
    const { engine } = this.#options
    record.checkedAt = performance.now()
    const before = record.broken ? [] : (await this.#relayed(hag)).map(({ connection }) => connection)
    const asked = new Set<string>()
    const turnedAway: WanPath[] = []
    let found: string | undefined
    let works = false
    // Which WANs there are changes meanwhile.
    const next = () =>
      this.#pathsByCost(hag).find(
        (path) => !signal.aborted && !asked.has(path.bind) && (!works || this.#admissions.isDue(hag, path)),
      )
    for (let path = next(); path !== undefined; path = next()) {
      const { bind } = path
      asked.add(bind)
      this.#admissions.asks(hag, bind)
      const finding = await this.#whileUsable(hag, path, () => examine(engine, { hag, bind }, { timeoutMs: patience.connectMs }))
      if (finding?.state === 'works') {
        this.#admissions.answered(hag, path, finding.isRefused)
        if (!works) this.#recordCheck(record, undefined, finding.pipelines ?? record.pipelines)
        works = true
      } else if (finding?.state === 'turned-away') turnedAway.push(path)
      // Or somebody on the way has said so.
      else if (finding?.state === 'broken') found ??= finding.trouble
    }
    for (const path of turnedAway) await this.#confirmTurnedAway(hag, path, works)
    if (signal.aborted || works || turnedAway.length > 0) return
    // What users' requests prove outweighs what ours doubt.
    const isServing = async () =>
      (await this.#relayed(hag)).some(({ connection, received }) => received > 0 && !before.includes(connection))
    if (found !== undefined && !(await isServing())) return this.#recordCheck(record, found, false)
    if (found !== undefined) return
    // Soon again, where it is not asked often anyway.
    const [path] = this.#pathsByCost(hag)
    if (path !== undefined && !record.broken) record.checkedAt = performance.now() - checkMs(path) + 1000
  }

  /** One that was just about to end closes connections, too. */
  async #confirmTurnedAway(hag: Hag, path: WanPath, worksElsewhere: boolean): Promise<void> {
    const result = await this.#ask(hag, path, patienceOf(path))
    const isClosed = !result.ok && result.stage === 'greeting' && result.failure.code === 'ECONNRESET'
    if (isClosed && worksElsewhere) this.recordTurnedAway(hag, path, 'closes')
  }

  async #relayed(hag: Hag) {
    const { engine } = this.#options
    if (engine.stats().relaying === 0) return []
    return (await engine.inspect()).filter(({ remote }) => remote.address === hag.address && remote.port === hag.port)
  }

  /** Undefined where the path is lost before there is an answer. */
  async #whileUsable<T>(hag: Hag, path: WanPath, ask: () => Promise<T>): Promise<T | undefined> {
    const answered = new AbortController()
    const isUsable = () => this.#pathsByCost(hag).some(({ wan, bind }) => wan === path.wan && bind === path.bind)
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

  /** Says so once where it is broken, and keeps it out of use until it works. */
  #recordCheck(record: HagRecord, trouble: string | undefined, pipelines: boolean): void {
    const { log, onChange } = this.#options
    if (pipelines !== record.pipelines) {
      record.pipelines = pipelines
      onChange()
    }
    if ((trouble !== undefined) === record.broken) return
    record.broken = trouble !== undefined
    record.askedAt = Number.NEGATIVE_INFINITY
    if (trouble !== undefined) this.#recordSign(record, { type: 'unfit', reason: trouble })
    else log.info(`HAG ${formatSocketAddress(record.hag)} answers requests again`)
  }

  /** Takes what is heard, but for a refusal: whose that is, only all answers together tell. */
  async #ask(hag: Hag, path: WanPath, timeoutMs: number, as = 'tcp' as 'tcp' | 'mptcp'): Promise<ProbeResult> {
    const how = { protocol: as === 'mptcp' ? path.protocol : as, connectTimeoutMs: timeoutMs, timeoutMs }
    const askedAt = performance.now()
    const result = await this.#options.engine.probe(hagProbe({ hag, bind: path.bind }, how))
    if (result.ok) this.#options.onPathAnswered(path)
    if (isStranger(result)) this.recordTurnedAway(hag, path, 'stranger')
    // One that closes connections from this address is there all the same.
    else if (result.ok || (isSilence(result) && !(result.stage === 'greeting' && this.refuses(hag, path.bind))))
      this.recordProbe(hag, result, askedAt, path, timeoutMs >= busyPatienceMs)
    return result
  }

  /** Over which to ask it something for its users. */
  pathTo(hag: Hag): WanPath | undefined {
    return this.#pathsByCost(hag).find(({ bind }) => !this.refuses(hag, bind))
  }

  /** One whose volume costs nothing, if one is usable; over which it serves us, if there is one. */
  #cheapestPath(hag: Hag): WanPath | undefined {
    const usable = this.#pathsByCost(hag)
    return (
      usable.find(({ bind }) => !this.refuses(hag, bind)) ?? usable[0] ?? this.#options.paths(familyOfAddress(hag.address))[0]
    )
  }

  /** Usable ones. */
  #pathsByCost(hag: Hag): WanPath[] {
    const paths = this.#options.paths(familyOfAddress(hag.address)).filter(({ usable }) => usable)
    return [...paths.filter(({ metered }) => !metered), ...paths.filter(({ metered }) => metered)]
  }

  /** Full up-links are no death: what its connections send is acknowledged, only new packets have it hard. */
  async #judgeSilence(record: HagRecord, sign: HagSign): Promise<void> {
    const { engine, paths } = this.#options
    const { answeredAt } = record
    record.busy = await isBehindFullWan(engine, record.hag, paths(familyOfAddress(record.hag.address)), acknowledgedMs)
    if (record.answeredAt !== answeredAt) record.busy = false
    else if (!record.busy) this.#recordSign(record, sign)
  }

  #recordSign(record: HagRecord, sign: HagSign): void {
    const before = record.health
    const now = performance.now()
    record.health = nextHag(before, sign, now)
    const { state, reason, misses } = record.health
    if (before.misses === 0 && misses > 0) {
      record.missedSince = now
      this.#wake.abort()
    }
    if (state === before.state) return
    const { log, onChange, onDead, onReturn } = this.#options
    const name = `HAG ${formatSocketAddress(record.hag)}`
    if (state === 'down') log.warn(`${name} is down: ${reason}`)
    else if (state === 'returning') log.info(`${name} answers again`)
    else log.info(`${name} is up`)
    onChange()
    if (state === 'returning') {
      record.checkedAt = Number.NEGATIVE_INFINITY
      record.undecidedAt = undefined
      record.directAnsweredAt = undefined
      onReturn(record.hag)
    }
    if (state !== 'down' || before.state === 'unknown' || sign.type === 'answer') return
    if (sign.type === 'refused') {
      onDead(record.hag, 'refused')
      return
    }
    // With nowhere else to go its connections may as well wait. Where it could not even be reached it may be our WANs.
    const others = this.#records.filter((one) => one !== record && one.health.state === 'up')
    if (others.some((one) => sign.type === 'unfit' || sign.reached || one.answeredAt > record.missedSince))
      onDead(record.hag, 'silence')
    else {
      record.undecidedAt = now
      for (const { hag } of others) this.reportTrouble(hag, 'connection')
      this.#wake.abort()
    }
  }

  #declareDead(record: HagRecord): void {
    record.undecidedAt = undefined
    record.directAnsweredAt = undefined
    if (record.health.state === 'down') this.#options.onDead(record.hag, 'silence')
  }

  /** One HAG answers: others that have just fallen silent are dead. */
  #decideOnOthers(answering: HagRecord): void {
    for (const record of this.#records) {
      if (record.undecidedAt === undefined || record === answering) continue
      if (performance.now() - record.undecidedAt < sameTimeMs) this.#declareDead(record)
      else record.undecidedAt = undefined
    }
  }
}

/** For each step of a question: above a round trip and a short queue, below a second SYN. */
const patienceOf = ({ rttMs }: WanPath) =>
  Math.ceil(rttMs === undefined ? patience.unknownMs : Math.max(patience.roundTrips * rttMs, patience.leastMs))
const checkMs = ({ metered }: WanPath) => (metered ? meteredCheckMs : connectCheckMs)

const isStranger = (result: ProbeResult) => !result.ok && result.failure.code === 'NOT_A_CLIENT'

const isSilence = (result: ProbeResult) => !result.ok && !['ECONNREFUSED', 'EACCES', 'NOT_A_CLIENT'].includes(result.failure.code)

function signOf(hag: Hag, result: ProbeResult, askedAt: number, path: PathAddress): HagSign | undefined {
  if (result.ok) return { type: 'answer' }
  const { code } = result.failure
  if (code === 'ECONNREFUSED') return { type: 'refused' }
  // Our side's fault: no address, no route.
  if (code === 'EADDRNOTAVAIL' || code === 'ENETUNREACH' || code === 'EINVAL') return undefined
  const reached = result.stage !== 'connect'
  // Its rules may be about our address.
  const where = reached && code === 'ECONNRESET' ? ` over ${whereOf(path)}` : ''
  return { type: 'silence', reason: `${troubleOf(hag, result)}${where}`, askedAt, reached }
}

export interface HagAnswer {
  hag: Hag
  path: WanPath
  result: ProbeResult
}
