/**
 * Probes every WAN in each family while the gateway runs: asks the HAGs over it, and watches what it carries. It reports facts; steering
 * decides what they mean for the WAN and the HAGs.
 */
import { closeSync } from 'node:fs'
import type { Family } from '../../base/address.js'
import type { Alarm } from '../../base/alarm.js'
import type { Engine, ProbeResult, Protocol } from '../../engine/contract.js'
import { hagProbe } from '../../engine/probe.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { Fact } from '../facts.js'
import type { Probed } from '../hag-facts.js'
import { type Carried, readCounters } from '../interface-counters.js'
import { type Hag, isUsable, type PathAddress } from '../model.js'
import type { Pace } from '../pace.js'
import { isAcknowledged } from '../subflow-signs.js'
import { FlowWatch } from './flow-watch.js'
import { type Health, stopPatience } from './health.js'
import { TokenBucket } from './probe-budget.js'

/** Fewer bytes may be late answers to our own probes. */
const signOfLifeBytes = 4000
/** Rounds in a row that had no answer while the interface still received other traffic. */
const maxLostWhileBusy = 20
/** A probe costs about half a kB: below 2 MB a month. */
const meteredIdleMs = 15 * 60_000
/** When to ask a metered WAN again for MPTCP if no HAG could tell, because none speaks SOCKS5 now: below 20 MB a month. */
const vainMs = 60_000
/** After a round without an answer on a WAN that carries other traffic: otherwise hosts that refuse at once are asked at their own pace. */
const untoldMs = 200
/** Who refuses us is found out over other WANs, half a kB each time. So long the finding counts if it was the path, or the HAG. */
const refusalHoldsMs = { onPath: 5 * 60_000, hag: 60_000 }
/** While nothing flows there is no queue. */
const maxCalmTimeoutMs = 500

/** What is known of a WAN in one family. */
export interface KnownLink {
  readonly wan: string
  readonly family: Family
  readonly metered: boolean
  /** The WAN's interface, by the kernel's name; before it was up, by the config's. */
  readonly device: string
  /** undefined: no link, or no address of the family. */
  readonly address: string | undefined
  readonly health: Health
  readonly mptcp: { readonly dueAt: number }
}

export interface LinkProberOptions<Link extends KnownLink = KnownLink> {
  engine: Pick<Engine, 'probe' | 'inspect' | 'connect' | 'stats'>
  pace: Pace
  /** As known now, always in the same order. */
  links(): readonly Link[]
  /** The HAGs of a family, in the order in which to ask until one answers. */
  hags(family: Family): readonly Hag[]
  /** When the next round over a link begins after the last, and how long each probe waits; undefined: not before something changes. */
  nextProbe(link: Link): { afterMs: number; timeoutMs: number } | undefined
  asksForMptcp(link: Link): boolean
  report(fact: Fact): void
  /** Reports a HAG's answer or silence. */
  reportHag(probed: Probed): void
  log: Pick<Log, 'error'>
  /** Tests pass their own. */
  counters?: (() => Map<string, Carried>) | undefined
}

/** What the prober remembers of a link. */
interface Memory {
  /** Whether the path refused us, how long that counts, and when we were last refused. */
  refusal: { isOnPath: boolean; until: number; metAt: number }
  lostWhileBusy: number
  /** What the interface had received when it was last probed. */
  receivedThen: number
  readonly budget: TokenBucket
  readonly alarm: Alarm
}

const noRefusal = { isOnPath: false, until: 0, metAt: Number.NEGATIVE_INFINITY }

export class LinkProber<Link extends KnownLink = KnownLink> {
  readonly #options: LinkProberOptions<Link>
  readonly #memories: readonly Memory[]
  readonly #flows: FlowWatch

  constructor(options: LinkProberOptions<Link>) {
    this.#options = options
    this.#memories = options.links().map(() => ({
      refusal: noRefusal,
      lostWhileBusy: 0,
      receivedThen: 0,
      budget: new TokenBucket(performance.now()),
      alarm: options.pace.alarm(),
    }))
    this.#flows = new FlowWatch({
      engine: options.engine,
      pace: options.pace,
      links: options.links,
      counters: () => this.#counters(),
      onSilent: (index, reason) => {
        const { health } = this.#link(index)
        inBackground(options.log, this.#verify(index, reason, stopPatience(health).timeoutMs))
      },
    })
  }

  /** Its address or its path has changed. `isMoved`: so who refused us there has to be found out again. */
  probeNow(index: number, isMoved = false): void {
    const memory = this.#memory(index)
    if (isMoved) memory.refusal = noRefusal
    memory.alarm.ring()
  }

  /** A HAG's machine does not answer over it any more, although nothing has changed. */
  verify(index: number): void {
    const { pace, log, nextProbe } = this.#options
    const link = this.#link(index)
    // A queue delays answers and drops some, but not for long while no client is active.
    const timeoutMs = Math.min(nextProbe(link)?.timeoutMs ?? maxCalmTimeoutMs, maxCalmTimeoutMs)
    if (pace.isCalm) inBackground(log, this.#verify(index, 'no HAG answers over it', timeoutMs))
    else this.probeNow(index)
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#flows.run(signal), ...this.#memories.map((_, index) => this.#follow(index, signal))])
  }

  #link(index: number): Link {
    return this.#options.links()[index] as Link
  }

  #memory(index: number): Memory {
    return this.#memories[index] as Memory
  }

  async #follow(index: number, signal: AbortSignal): Promise<void> {
    const { pace } = this.#options
    const memory = this.#memory(index)
    let probedAt = Number.NEGATIVE_INFINITY
    let last: Carried = { received: 0, sent: 0 }
    let lastAddress = ''
    let vainUntil = Number.NEGATIVE_INFINITY
    let spacingMs = 0
    while (!signal.aborted) {
      const { address, metered, device } = this.#link(index)
      const due = this.#options.nextProbe(this.#link(index))
      // Without a link there is nothing to do before a change.
      const afterMs = Math.max(due?.afterMs ?? Number.POSITIVE_INFINITY, spacingMs)
      await memory.alarm.wait(this.#link(index).health.state === 'up' ? pace.after(afterMs) : afterMs, signal)
      if (signal.aborted) return
      const link = this.#link(index)
      if (due === undefined || address === undefined || link.address !== address) continue
      const now = performance.now()
      const carried = this.#counters().get(device) ?? last
      const isUnanswered = carried.sent > last.sent && carried.received === last.received
      last = carried
      if (address !== lastAddress) vainUntil = Number.NEGATIVE_INFINITY
      lastAddress = address
      const isDue =
        carried.received - memory.receivedThen >= signOfLifeBytes ||
        now >= Math.min(Math.max(link.mptcp.dueAt, vainUntil), probedAt + meteredIdleMs)
      if (metered && link.health.state === 'up' && !isDue && !(isUnanswered && this.#mayAsk(index))) continue
      const fact = await this.#round(index, address, Math.ceil(due.timeoutMs))
      if (signal.aborted) return
      probedAt = performance.now()
      memory.receivedThen = this.#received(device) ?? 0
      spacingMs = fact === undefined ? untoldMs : 0
      if (fact !== undefined) this.#options.report(fact)
      if (this.#link(index).mptcp.dueAt <= probedAt) vainUntil = probedAt + vainMs
    }
  }

  /** One round over a WAN. undefined: no answer, but the WAN carries something; it is full, not dead. */
  async #round(index: number, bind: string, timeoutMs: number): Promise<Fact | undefined> {
    const memory = this.#memory(index)
    const { report } = this.#options
    const before = this.#received(this.#link(index).device) ?? 0
    const startedAt = performance.now()
    const asksForMptcp = this.#options.asksForMptcp(this.#link(index))
    let answer = await this.#ask(index, bind, asksForMptcp ? 'mptcp' : 'tcp', timeoutMs)
    if (asksForMptcp && answer?.protocol !== undefined) report({ type: 'mptcp-seen', bind, seen: answer.protocol })
    else if (asksForMptcp && answer === undefined) {
      // One packet may have been lost: blame the path only if it happens again.
      const ask = (protocol: Protocol) => this.#ask(index, bind, protocol, timeoutMs)
      const [mptcp, tcp] = await Promise.all([ask('mptcp'), ask('tcp')])
      const seen = mptcp === undefined ? tcp && 'blocked' : mptcp.protocol
      if (seen !== undefined) report({ type: 'mptcp-seen', bind, seen })
      answer = mptcp ?? tcp
    }
    const { lostWhileBusy } = memory
    memory.lostWhileBusy = 0
    if (answer !== undefined) return { type: 'wan-answered', bind, rttMs: answer.connectMs }
    const isRefused = memory.refusal.metAt >= startedAt
    const reason = isRefused ? 'something on its path answers in the place of the HAGs' : 'no HAG answers over it'
    const carries = await this.#carries(index, bind, { before, withinMs: timeoutMs })
    if (carries === false) return { type: 'wan-silent', bind, reason, isSure: false }
    if (carries === true) return undefined
    // A queue would have emptied by then.
    memory.lostWhileBusy = lostWhileBusy + 1
    const [hag] = this.#options.hags(this.#link(index).family)
    if (lostWhileBusy < maxLostWhileBusy || hag === undefined) return undefined
    if (!(await this.#answersElsewhere(index, hag, timeoutMs))) return undefined
    return { type: 'wan-silent', bind, reason: 'a HAG answers over another WAN, and none over it', isSure: false }
  }

  /**
   * Whether a WAN over which no HAG answers is only full. True if its subflows are acknowledged. Undefined if other bytes came in since, or
   * that cannot be read, and there are no subflows to tell more.
   */
  async #carries(index: number, bind: string, how: { before: number; withinMs: number }): Promise<boolean | undefined> {
    const received = this.#received(this.#link(index).device)
    if (received !== undefined && received - how.before <= signOfLifeBytes) return false
    return isAcknowledged(this.#options.engine, bind, how.withinMs)
  }

  /** For extra probes. On a metered WAN they must add little to what came in, or fit into a small budget. */
  #mayAsk(index: number): boolean {
    const { metered, device } = this.#link(index)
    const memory = this.#memory(index)
    const isSmall = !metered || (this.#received(device) ?? 0) - memory.receivedThen >= signOfLifeBytes
    return isSmall || memory.budget.take(performance.now())
  }

  /** Asks the first HAG and, if it is silent, all the others at once. */
  async #ask(index: number, bind: string, protocol: Protocol, timeoutMs: number): Promise<Answer | undefined> {
    const [first, ...others] = this.#options.hags(this.#link(index).family)
    if (first === undefined) return undefined
    const one = (hag: Hag) => this.#askOne(index, { hag, bind, protocol, timeoutMs })
    return (await one(first)) ?? (await Promise.all(others.map(one))).find((other) => other !== undefined)
  }

  async #askOne(
    index: number,
    { hag, bind, protocol, timeoutMs }: { hag: Hag; bind: string; protocol: Protocol; timeoutMs: number },
  ): Promise<Answer | undefined> {
    const { report, reportHag } = this.#options
    const link = this.#link(index)
    if (link.address !== bind) return undefined
    const path = { wan: link.wan, bind }
    const askedAt = performance.now()
    const result = await this.#probe(hag, bind, protocol, timeoutMs)
    // If a HAG accepts connections and is silent, the time to connect is known all the same.
    const connectMs = result.connectMs ?? Math.min(performance.now() - askedAt, timeoutMs)
    const isStranger = !result.ok && result.failure.code === 'NOT_A_CLIENT'
    // If a HAG refuses us, that is the HAG's fault, and the WAN works; unless something on the path refuses in its place.
    const hasAnswered = result.ok || result.stage !== 'connect' || result.failure.code === 'ECONNREFUSED'
    if (!result.ok && !isStranger && hasAnswered && (await this.#answersElsewhere(index, hag, timeoutMs))) {
      if (result.failure.code === 'ECONNRESET' && (await this.#speaksMptcp(hag, bind, timeoutMs))) {
        report({ type: 'hag-turned-away', hag, path, how: 'closes' })
        return { protocol: undefined, connectMs }
      }
      this.#memory(index).refusal = { ...this.#memory(index).refusal, metAt: performance.now() }
      return undefined
    }
    // A WAN that is down would be silent whatever the HAG does.
    if (result.ok || isStranger || this.#link(index).health.state !== 'down')
      reportHag({ hag, path, result, askedAt, isPatient: false })
    if (result.ok) return result
    return hasAnswered ? { protocol: undefined, connectMs } : undefined
  }

  #probe(hag: Hag, bind: string, protocol: Protocol, timeoutMs: number): Promise<ProbeResult> {
    return this.#options.engine.probe(hagProbe({ hag, bind }, { protocol, connectTimeoutMs: timeoutMs, timeoutMs }))
  }

  /** Whether a HAG that does not answer properly over this WAN does so over another one. Asked rarely, because that one may be metered. */
  async #answersElsewhere(index: number, hag: Hag, timeoutMs: number): Promise<boolean> {
    const memory = this.#memory(index)
    if (performance.now() < memory.refusal.until) return memory.refusal.isOnPath
    const { family } = this.#link(index)
    const others = this.#options.links().filter((one, at) => at !== index && one.family === family && isUsable(one.health))
    if (others.length === 0) return false
    const askedAt = performance.now()
    const answers = await Promise.all(
      others.map(async ({ wan, address: bind = '' }) => {
        const path: PathAddress = { wan, bind }
        return { path, result: await this.#probe(hag, bind, 'tcp', timeoutMs) }
      }),
    )
    const answer = answers.find(({ result }) => result.ok)
    if (answer !== undefined) this.#options.reportHag({ hag, ...answer, askedAt, isPatient: false })
    const isOnPath = answer !== undefined
    const until = performance.now() + (isOnPath ? refusalHoldsMs.onPath : refusalHoldsMs.hag)
    memory.refusal = { ...memory.refusal, isOnPath, until }
    return isOnPath
  }

  /**
   * Plain TCP: a middlebox that ends connections in the place of a HAG does so as TCP. The HAG itself may end them if it does not know our
   * address.
   */
  async #speaksMptcp(hag: Hag, bind: string, timeoutMs: number): Promise<boolean> {
    const remote = { address: hag.address, port: hag.port }
    const connected = await this.#options.engine.connect({ protocol: 'mptcp', remote, bind, connectTimeoutMs: timeoutMs })
    if (!connected.ok) return false
    closeSync(connected.fd)
    return connected.protocol === 'mptcp'
  }

  /** It has just fallen silent. Probes several times at once, so that no single lost packet decides whether the WAN is dead. */
  async #verify(index: number, reason: string, patienceMs: number): Promise<void> {
    if (!this.#mayAsk(index)) return
    const { address: bind, device, metered } = this.#link(index)
    if (bind === undefined) return
    const before = this.#received(device) ?? 0
    const timeoutMs = Math.ceil(patienceMs)
    const probes = Array.from({ length: metered ? 2 : 3 }, () => this.#ask(index, bind, 'tcp', timeoutMs))
    const answers = await Promise.all(probes)
    if (this.#link(index).address !== bind) return
    this.#memory(index).receivedThen = this.#received(device) ?? 0
    const answer = answers.find((one) => one !== undefined)
    if (answer !== undefined) return this.#options.report({ type: 'wan-answered', bind, rttMs: answer.connectMs })
    if ((await this.#carries(index, bind, { before, withinMs: timeoutMs })) !== false) return
    this.#options.report({ type: 'wan-silent', bind, reason, isSure: true })
    this.probeNow(index)
  }

  #counters(): Map<string, Carried> {
    return (this.#options.counters ?? readCounters)()
  }

  /** undefined if counters cannot be read: then it is not known whether something came in. */
  #received(device: string): number | undefined {
    const counters = this.#counters()
    return counters.size === 0 ? undefined : (counters.get(device)?.received ?? 0)
  }
}

interface Answer {
  protocol: Protocol | undefined
  connectMs: number
}
