/** Follows the health of every WAN in each family for as long as the gateway runs: asks the HAGs over it, and watches what it carries. */
import { closeSync } from 'node:fs'
import type { Family } from '../../base/address.js'
import { pause } from '../../base/pause.js'
import type { Engine, ProbeResult, Protocol } from '../../engine/contract.js'
import { hagProbe, type Target } from '../../engine/probe.js'
import type { WanAddresses } from '../../network/state.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import { type Carried, readCounters } from '../interface-counters.js'
import { families, type WanPath } from '../model.js'
import { isAcknowledged } from '../subflow-signs.js'
import { answersMissing, type Health, isUsable, nextHealth, nextProbe, type Sign, stopPatience, unknown } from './health.js'
import { MptcpSupport } from './mptcp-support.js'
import { TokenBucket } from './probe-budget.js'
import { Flow, flowTickMs } from './traffic-watch.js'

/** Fewer bytes than these may be ours: the answers to a probe that came too late. */
const signOfLifeBytes = 4000
/** Questions in a row that only other traffic speaks for. */
const maxLostWhileBusy = 20
/** A probe costs about half a kB: below 2 MB a month. */
const meteredIdleMs = 15 * 60_000
/** Who it is that refuses us is asked over other WANs, half a kB each time: as long as it is the path's doing, and where it is the HAG's. */
const refusalHoldsMs = { onPath: 5 * 60_000, hag: 60_000 }
/** Where nothing flows, one look in so many milliseconds notices that something begins to. */
const idleTickMs = 250
/** Longer than a round trip and a delayed acknowledgement (RFC 1122 section 4.2.3.2) of most paths. */
const unansweredMs = 300

interface ProbedLink {
  readonly wan: string
  readonly family: Family
  readonly metered: boolean
  device: string
  address: string | undefined
  health: Health
  mptcp: MptcpSupport
  /** Whether it was the path that refused us, when that was asked last, how long it counts, and when it was met last. */
  refusal: { isOnPath: boolean; until: number; metAt: number }
  /** So many questions in a row had no answer while something else came in. */
  lostWhileBusy: number
  /** What it had received when it was last asked. */
  receivedThen: number
  readonly allowance: TokenBucket
  wake: AbortController
}

const noRefusal = { isOnPath: false, until: 0, metAt: Number.NEGATIVE_INFINITY }

export interface WanProberOptions {
  engine: Pick<Engine, 'probe' | 'inspect' | 'connect'>
  wans: readonly { name: string; metered: boolean }[]
  /** Whom to ask, in this order, until one answers. */
  hags(family: Family): readonly Target['hag'][]
  /** What a HAG said, or that it said nothing, to a question put then (`performance.now`). */
  onHagProbed(hag: Target['hag'], result: ProbeResult, askedAt: number, path: Pick<WanPath, 'wan' | 'bind'>): void
  /** A HAG is there, but takes nothing from this address. */
  onTurnedAway(hag: Target['hag'], path: Pick<WanPath, 'wan' | 'bind'>, how: 'stranger' | 'closes'): void
  log: Log
  /** Something about the paths changed. */
  onChange(): void
  /** Tests pass their own. */
  counters?: () => Map<string, Carried>
}

export class WanProber {
  readonly #options: WanProberOptions
  readonly #links: ProbedLink[]

  constructor(options: WanProberOptions) {
    this.#options = options
    this.#links = options.wans.flatMap(({ name, metered }) =>
      families.map((family) => ({
        wan: name,
        family,
        metered,
        device: '',
        address: undefined,
        health: { ...unknown, link: false },
        mptcp: new MptcpSupport(metered),
        wake: new AbortController(),
        refusal: noRefusal,
        lostWhileBusy: 0,
        receivedThen: 0,
        allowance: new TokenBucket(performance.now()),
      })),
    )
  }

  /** The WANs that have a link and an address now; the others count as down, and those that were not before for this reason. */
  useWans(wans: readonly WanAddresses[], reason = 'the network set-up has no way over it'): void {
    for (const link of this.#links) {
      const wan = wans.find(({ name }) => name === link.wan)
      const address = wan?.[`address${link.family}`]
      if (address === link.address) continue
      link.device = wan?.interface ?? link.device
      // Another address may mean another path.
      link.mptcp = new MptcpSupport(link.metered)
      link.refusal = noRefusal
      const hadLink = link.address !== undefined
      link.address = address
      const gone: Sign = { type: 'link', present: false, reason }
      if (address === undefined) this.#recordSign(link, gone)
      else {
        if (hadLink) link.health = nextHealth(link.health, gone, performance.now())
        this.#recordSign(link, { type: 'link', present: true, reason: `its address is ${address}` })
      }
      probeNow(link)
    }
  }

  /** There are other HAGs to ask. */
  probeUnasked(): void {
    for (const link of this.#links) probeNow(link)
  }

  /** WANs that have an address of the family: usable ones by round-trip time, then the others. */
  paths(family: Family): WanPath[] {
    return this.#links
      .filter((link) => link.family === family && link.address !== undefined)
      .map((link) => {
        const { wan, metered, mptcp, address: bind = '' } = link
        const health = this.#judged(link)
        const rank = { up: 0, degraded: 1, probing: 2, down: 3 }[health.state] + (mptcp.isPoor ? 0.5 : 0)
        return {
          path: {
            wan,
            bind,
            metered,
            protocol: mptcp.protocol,
            usable: isUsable(health),
            lost: health.state === 'down',
            rttMs: health.rttMs,
            leastRttMs: health.leastRttMs,
          },
          rank,
        }
      })
      .sort((one, other) => one.rank - other.rank || (one.path.rttMs ?? 1e5) - (other.path.rttMs ?? 1e5))
      .map(({ path }) => path)
  }

  /** Somebody else's question over this address got an answer: where it counts as down the next one need not wait. */
  pathAnswered(bind: string): void {
    const link = this.#links.find(({ address }) => address === bind)
    if (link?.health.state === 'down' && link.health.answers === 0) probeNow(link)
  }

  /** What began with MPTCP over this address became plain TCP, or was overtaken by another WAN: is it the path? */
  mptcpFellBack(bind: string): void {
    const link = this.#links.find(({ address }) => address === bind)
    if (link?.mptcp.recordFallback()) probeNow(link)
  }

  /** Up in one of its families at least. */
  isUsable(wan: string): boolean {
    return this.#links.some((link) => link.wan === wan && link.address !== undefined && isUsable(this.#judged(link)))
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#watchFlows(signal), ...this.#links.map((link) => this.#probeRegularly(link, signal))])
  }

  /** Where no HAG has an address of the family, nobody can be asked: the WAN is as good as in its other one. */
  #judged(link: ProbedLink): Health {
    if (this.#options.hags(link.family).length > 0) return link.health
    const other = this.#links.find((one) => one.wan === link.wan && one.family !== link.family)
    return other?.address === undefined ? link.health : other.health
  }

  async #probeRegularly(link: ProbedLink, signal: AbortSignal): Promise<void> {
    let probedAt = Number.NEGATIVE_INFINITY
    let last: Carried = { received: 0, sent: 0 }
    while (!signal.aborted) {
      const { address, metered } = link
      const targets = this.#options.hags(link.family)
      const due = address === undefined || targets.length === 0 ? undefined : nextProbe(link.health, metered)
      // Without a link there is nothing to do before a change.
      await pause(due?.afterMs ?? 60_000, signal, link.wake.signal)
      if (link.wake.signal.aborted) link.wake = new AbortController()
      if (signal.aborted) return
      if (due === undefined || link.address !== address) continue
      const now = performance.now()
      const carried = this.#counters().get(link.device) ?? last
      const isUnanswered = carried.sent > last.sent && carried.received === last.received
      last = carried
      const isDue =
        carried.received - link.receivedThen >= signOfLifeBytes || now >= Math.min(link.mptcp.dueAt, probedAt + meteredIdleMs)
      if (metered && link.health.state === 'up' && !isDue && !(isUnanswered && this.#mayAsk(link))) continue
      const sign = await this.#probe(link, Math.ceil(due.timeoutMs))
      if (signal.aborted) return
      probedAt = performance.now()
      link.receivedThen = this.#received(link.device) ?? 0
      if (sign !== undefined && link.address === address) this.#recordSign(link, sign)
    }
  }

  /** One question over a WAN. undefined: no answer, but the WAN carries something; it is full, not dead. */
  async #probe(link: ProbedLink, timeoutMs: number): Promise<Sign | undefined> {
    const before = this.#received(link.device) ?? 0
    const startedAt = performance.now()
    const isUp = link.health.state === 'up'
    // A WAN that is down must be found to be back as soon as anything passes.
    const asksForMptcp = link.mptcp.state === 'unknown' || (isUp && performance.now() >= link.mptcp.dueAt)
    let answer = await this.#ask(link, asksForMptcp ? 'mptcp' : 'tcp', timeoutMs)
    if (asksForMptcp && answer !== undefined) this.#recordMptcp(link, answer.protocol)
    else if (asksForMptcp) {
      // One packet may have been lost: only what happens again is the path's doing.
      const [mptcp, tcp] = await Promise.all([this.#ask(link, 'mptcp', timeoutMs), this.#ask(link, 'tcp', timeoutMs)])
      if (mptcp !== undefined) this.#recordMptcp(link, mptcp.protocol)
      else if (tcp !== undefined) this.#recordMptcp(link, 'blocked')
      answer = mptcp ?? tcp
    }
    const masked = link.lostWhileBusy
    link.lostWhileBusy = 0
    if (answer !== undefined) return { type: 'answer', rttMs: answer.connectMs }
    const isRefused = link.refusal.metAt >= startedAt
    const reason = isRefused ? 'something on its path answers in the place of the HAGs' : 'no HAG answers over it'
    const carries = await this.#carries(link, before, timeoutMs)
    if (carries === false) return { type: 'silence', reason }
    if (carries === true) return undefined
    // A queue that is as long as that empties some time.
    link.lostWhileBusy = masked + 1
    const [hag] = this.#options.hags(link.family)
    const isHagThere = masked >= maxLostWhileBusy && hag !== undefined && (await this.#answersElsewhere(link, hag, timeoutMs))
    return isHagThere ? { type: 'silence', reason: 'a HAG answers over another WAN, and none over it' } : undefined
  }

  /**
   * Is a WAN over which no HAG answers only full? True where its subflows are acknowledged; undefined where something else has come in
   * since, as far as can be read, and there are no subflows to tell what that means.
   */
  async #carries({ device, address = '' }: ProbedLink, receivedBefore: number, withinMs: number): Promise<boolean | undefined> {
    const received = this.#received(device)
    if (received !== undefined && received - receivedBefore <= signOfLifeBytes) return false
    return isAcknowledged(this.#options.engine, address, withinMs)
  }

  /** Out of turn: on a metered WAN only where it adds little to what came in, or out of a small store. */
  #mayAsk(link: ProbedLink): boolean {
    const isSmall = !link.metered || (this.#received(link.device) ?? 0) - link.receivedThen >= signOfLifeBytes
    return isSmall || link.allowance.take(performance.now())
  }

  /** Asks the first HAG and, where it is silent, all the others at once. */
  async #ask(
    link: ProbedLink,
    protocol: Protocol,
    timeoutMs: number,
  ): Promise<{ protocol: Protocol | undefined; connectMs: number } | undefined> {
    const [first, ...others] = this.#options.hags(link.family)
    const one = async (hag: Target['hag']) => {
      const { address: bind } = link
      if (bind === undefined) return undefined
      const startedAt = performance.now()
      const result = await this.#options.engine.probe(
        hagProbe({ hag, bind }, { protocol, connectTimeoutMs: timeoutMs, timeoutMs }),
      )
      // A HAG that takes connections and says nothing tells how far away it is all the same.
      const connectMs = result.connectMs ?? Math.min(performance.now() - startedAt, timeoutMs)
      const path = { wan: link.wan, bind }
      if (!result.ok && result.failure.code === 'NOT_A_CLIENT') {
        this.#options.onTurnedAway(hag, path, 'stranger')
        return { protocol: undefined, connectMs }
      }
      // A HAG that refuses us is a fault of the HAG's, and the WAN has carried its answer; unless it is somebody on the way who refuses.
      const answered = result.ok || result.stage !== 'connect' || result.failure.code === 'ECONNREFUSED'
      if (!result.ok && answered && (await this.#answersElsewhere(link, hag, timeoutMs))) {
        if (result.failure.code === 'ECONNRESET' && (await this.#speaksMptcp({ hag, bind }, timeoutMs))) {
          this.#options.onTurnedAway(hag, path, 'closes')
          return { protocol: undefined, connectMs }
        }
        link.refusal = { ...link.refusal, metAt: performance.now() }
        return undefined
      }
      // One that is down would be silent whatever the HAG does.
      if (result.ok || link.health.state !== 'down') this.#options.onHagProbed(hag, result, startedAt, path)
      if (result.ok) return result
      return answered ? { protocol: undefined, connectMs } : undefined
    }
    if (first === undefined) return undefined
    const answer = await one(first)
    return answer ?? (await Promise.all(others.map(one))).find((other) => other !== undefined)
  }

  /** Does a HAG that does not answer properly over this WAN do so over another one? Seldom asked, because that may be metered. */
  async #answersElsewhere(link: ProbedLink, hag: Target['hag'], timeoutMs: number): Promise<boolean> {
    const { refusal } = link
    if (performance.now() < refusal.until) return refusal.isOnPath
    const others = this.#links.filter((one) => one !== link && one.family === link.family && isUsable(one.health))
    if (others.length === 0) return false
    const askedAt = performance.now()
    const answers = await Promise.all(
      others.map(async ({ wan, address: bind = '' }) => {
        const how = { protocol: 'tcp' as const, connectTimeoutMs: timeoutMs, timeoutMs }
        return { path: { wan, bind }, result: await this.#options.engine.probe(hagProbe({ hag, bind }, how)) }
      }),
    )
    const answer = answers.find(({ result }) => result.ok)
    if (answer !== undefined) this.#options.onHagProbed(hag, answer.result, askedAt, answer.path)
    const isOnPath = answer !== undefined
    const until = performance.now() + (isOnPath ? refusalHoldsMs.onPath : refusalHoldsMs.hag)
    link.refusal = { ...link.refusal, isOnPath, until }
    return isOnPath
  }

  /** What ends connections in the place of a HAG ends them as TCP; the HAG may do so where it does not know our address. */
  async #speaksMptcp({ hag, bind }: Target, timeoutMs: number): Promise<boolean> {
    const remote = { address: hag.address, port: hag.port }
    const connected = await this.#options.engine.connect({ protocol: 'mptcp', remote, bind, connectTimeoutMs: timeoutMs })
    if (!connected.ok) return false
    closeSync(connected.fd)
    return connected.protocol === 'mptcp'
  }

  /** Says so where what a probe has seen is news. */
  #recordMptcp(link: ProbedLink, seen: Protocol | 'blocked' | undefined): void {
    if (!link.mptcp.recordProbe(seen, performance.now())) return
    const name = this.#name(link)
    if (link.mptcp.state === 'yes') this.#options.log.info(`WAN ${name} carries MPTCP again`)
    else {
      const what = link.mptcp.state === 'blocked' ? 'drops it' : 'removes it'
      this.#options.log.warn(`WAN ${name} carries no MPTCP, something on its path ${what}: what begins there is not bonded`)
    }
    this.#options.onChange()
  }

  /** Looks often while something flows, and asks at once when a steady stream stops. */
  async #watchFlows(signal: AbortSignal): Promise<void> {
    const flows = new Map<string, Flow>()
    while (!signal.aborted) {
      const now = performance.now()
      let flowing = false
      for (const [device, carried] of this.#counters()) {
        const links = this.#links.filter((link) => link.device === device && link.address !== undefined && isUsable(link.health))
        if (links.length === 0) continue
        const flow = flows.get(device) ?? new Flow()
        flows.set(device, flow)
        flow.look(carried, now)
        if (flow.isRecent(now)) flowing = true
        const stopMs = Math.max(...links.map(({ health }) => stopPatience(health).stopMs))
        // An acknowledgement needs no answer: where questions cost money, the slower look at what is unanswered must do.
        const silence = 'no HAG answers over it'
        const isUnanswered = flow.unanswered(unansweredMs, now) && !links.some(({ metered }) => metered)
        const doubt = flow.stopped(stopMs, now) ? `what it carried has stopped, and ${silence}` : isUnanswered && silence
        if (doubt !== false) for (const link of links) inBackground(this.#options.log, this.#verify(link, doubt))
      }
      await pause(flowing ? flowTickMs : idleTickMs, signal)
    }
  }

  /** What it carried has just stopped: is the WAN dead? Several questions at once, so that no lost packet decides. */
  async #verify(link: ProbedLink, reason: string): Promise<void> {
    if (!this.#mayAsk(link)) return
    const { address } = link
    const before = this.#received(link.device) ?? 0
    const timeoutMs = Math.ceil(stopPatience(link.health).timeoutMs)
    const questions = Array.from({ length: link.metered ? 2 : 3 }, () => this.#ask(link, 'tcp', timeoutMs))
    const answers = await Promise.all(questions)
    if (link.address !== address) return
    link.receivedThen = this.#received(link.device) ?? 0
    const answer = answers.find((one) => one !== undefined)
    if (answer !== undefined) return this.#recordSign(link, { type: 'answer', rttMs: answer.connectMs })
    if ((await this.#carries(link, before, timeoutMs)) !== false || link.address !== address) return
    this.#recordSign(link, { type: 'silence', reason, sure: true })
    probeNow(link)
  }

  #counters(): Map<string, Carried> {
    return (this.#options.counters ?? readCounters)()
  }

  /** undefined where no counters can be read: then nothing says that nothing has come in. */
  #received(device: string): number | undefined {
    const counters = this.#counters()
    return counters.size === 0 ? undefined : (counters.get(device)?.received ?? 0)
  }

  #recordSign(link: ProbedLink, sign: Sign): void {
    const before = link.health
    link.health = nextHealth(before, sign, performance.now())
    const { state, rttMs } = link.health
    // One that is down may lose its link too: that is a better reason.
    const losesLink = before.link && !link.health.link
    if (before.state === state && !losesLink) {
      if (sign.type !== 'answer') return
      // The order may be another one.
      this.#options.onChange()
      const missing = answersMissing(link.health)
      if (missing > 0 && link.health.answers === 1)
        this.#options.log.info(`WAN ${this.#name(link)} answers again: it is used after ${missing} more, because it fell lately`)
      return
    }
    this.#options.onChange()
    // Of a family in which no HAG is, nothing but its link is known.
    if (this.#options.hags(link.family).length === 0) return
    const reason = sign.type === 'answer' ? `a HAG answered in ${Math.round(sign.rttMs)} ms` : sign.reason
    const text = `WAN ${this.#name(link)} is ${state}: ${reason}`
    const fields = rttMs === undefined ? {} : { rttMs: Math.round(rttMs) }
    if (state === 'down') this.#options.log.warn(text, fields)
    else this.#options.log.info(text, fields)
  }

  #name({ wan, family }: ProbedLink): string {
    const asked = families.filter((one) => this.#options.hags(one).length > 0)
    return asked.length > 1 ? `${wan} (IPv${family})` : wan
  }
}

function probeNow(link: ProbedLink): void {
  link.wake.abort()
}
