/** All probers, connected with steer, which takes the facts that they report and knows what to ask next. */
import type { Family } from '../../base/address.js'
import type { Alarm } from '../../base/alarm.js'
import type { GatewayConfig } from '../../config/schema.js'
import type { Engine } from '../../engine/contract.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import type { ConnectionFact, Fact } from '../facts.js'
import { type Probed, reportProbe } from '../hag-facts.js'
import type { examine } from '../hags/capabilities.js'
import type { HagDirectory } from '../hags/directory.js'
import { type FirstAnswer, firstAnswer } from '../hags/first-answer.js'
import { HagProber } from '../hags/hag-prober.js'
import { Ipv6 } from '../hags/ipv6.js'
import { serves } from '../hags/users.js'
import type { Carried } from '../interface-counters.js'
import { type Hag, isSameHag } from '../model.js'
import type { Pace } from '../pace.js'
import { FullSize } from '../wans/full-size.js'
import { LinkProber } from '../wans/link-prober.js'
import { SilenceWatch } from '../wans/silence-watch.js'
import { admissionDueAt, isRefused, isToConfirm } from './admissions.js'
import type { HagState } from './hag-states.js'
import {
  asksForMptcp,
  cheapestLink,
  greetingDueAt,
  hagsToAsk,
  ipv6DueAt,
  ipv6QuestionTo,
  nextRound,
  requestDueAt,
} from './schedule.js'
import { hagFamily, linksByCost, linkTo, type State } from './state.js'
import type { Steer } from './steer.js'
import type { LinkState } from './wan-links.js'

const tickMs = 1000

export interface ProbersOptions {
  config: Pick<GatewayConfig, 'listen'>
  engine: Pick<Engine, 'probe' | 'inspect' | 'connect' | 'stats'>
  steer: Pick<Steer, 'state' | 'target' | 'report'>
  pace: Pace
  log: Log
  /** Tests pass their own. */
  counters?: (() => Map<string, Carried>) | undefined
  examine?: typeof examine | undefined
}

export class Probers {
  readonly #options: ProbersOptions
  readonly #links: LinkProber<LinkState>
  readonly #silence: SilenceWatch<LinkState>
  readonly #hags: HagProber<HagState>
  readonly #fullSize: FullSize
  readonly #ipv6: Ipv6
  readonly #clock: Alarm

  constructor(options: ProbersOptions) {
    const { config, engine, steer, pace, log, counters, examine } = options
    this.#options = options
    this.#clock = pace.alarm()
    const now = () => performance.now()
    const report = (fact: Fact) => steer.report(fact)
    const linksTo = (hag: Hag) => steer.target.links[hagFamily(hag)]
    const reportHag = (probed: Probed) => {
      const isDown = (hag: Hag) => this.#stateOf(hag)?.health.state === 'down'
      inBackground(log, reportProbe(probed, { engine, linksTo, isDown, report }))
    }
    const hagsOf = (family: Family) => hagsToAsk(this.#hagStates(), family)
    this.#links = new LinkProber({
      engine,
      pace,
      log,
      counters,
      links: () => steer.state.links,
      hags: hagsOf,
      nextProbe: (link) => nextRound(steer.state, link),
      asksForMptcp: (link) => asksForMptcp(link, now()),
      report,
      reportHag,
    })
    this.#silence = new SilenceWatch({
      engine,
      log,
      links: () => steer.state.links,
      hags: hagsOf,
      timeoutMs: (link) => Math.ceil(nextRound(steer.state, link)?.timeoutMs ?? 1000),
      onSilent: (index) => this.#links.verify(index),
      onEnded: (index) => this.#links.probeNow(index),
    })
    this.#hags = new HagProber({
      engine,
      pace,
      log,
      examine,
      hags: () => this.#hagStates(),
      greetingDueAt: (one) => {
        const { isCalm } = pace
        const how = { inUse: steer.target.usableHags[0], isRelaying: engine.stats().relaying > 0, isCalm }
        return greetingDueAt(steer.state, one, how)
      },
      requestDueAt: (one) => requestDueAt(steer.state, one),
      isAdmissionDue: (hag, link) => now() >= admissionDueAt(steer.state.admissions, hag, link),
      isRefused: (hag, bind) => isRefused(steer.state.admissions, hag, bind),
      links: linksTo,
      linksByCost: (hag) => linksByCost(steer.state, hag),
      cheapestLink: (hag) => cheapestLink(steer.state, hag),
      report,
      reportHag,
      onAnswered: ({ bind }) =>
        this.#probeLinks(({ address, health }) => address === bind && health.state === 'down' && health.answers === 0),
    })
    this.#fullSize = new FullSize({ engine, links: () => steer.state.links, hags: hagsOf, report })
    this.#ipv6 = new Ipv6({
      engine,
      hags: () => steer.target.usableHags,
      isReachable: (hag) => linkTo(steer.state, hag) !== undefined,
      question: (hag) => ipv6QuestionTo(steer.state, hag, now()),
      own: () =>
        steer.state.wans.flatMap(({ address6 }) =>
          address6 === undefined ? [] : [{ address: address6, port: config.listen.port }],
        ),
      report,
    })
  }

  /** Each runs until the signal. */
  run(signal: AbortSignal): Promise<void>[] {
    return [
      this.#links.run(signal),
      this.#silence.run(signal),
      this.#fullSize.run(signal),
      this.#hags.run(signal),
      this.#tick(signal),
    ]
  }

  /** Asks the HAGs at the start. */
  firstAnswer(directory: Pick<HagDirectory, 'refresh'>, onChange: () => void): Promise<FirstAnswer> {
    return firstAnswer({ prober: this.#hags, directory, hags: () => this.#options.steer.target.hags, onChange })
  }

  /** Asks before anybody is redirected whether IPv6 destinations are reached. */
  askAboutIpv6(): Promise<void> {
    return this.#ipv6.begin()
  }

  /** To be called when routes have changed. */
  checkFullSize(): void {
    this.#fullSize.checkNow()
  }

  /** To be called when known things have changed: a probe may be due. */
  wake(before: State, after: State): void {
    const hags = after.hags.map(({ hag }) => hag)
    const areHagsOthers = hags.length !== before.hags.length || hags.some((hag, index) => hag !== before.hags[index]?.hag)
    for (const [index, { address }] of after.links.entries()) {
      const isMoved = address !== before.links[index]?.address
      if (isMoved || areHagsOthers) this.#links.probeNow(index, isMoved)
    }
    this.#silence.look()
    this.#hags.look()
    this.#fullSize.look()
    if (after.hags !== before.hags) this.#clock.ring()
  }

  /** A connection had this trouble: asks at once what is wrong. */
  lookInto(fact: ConnectionFact): void {
    const { log, steer } = this.#options
    if (fact.type === 'mptcp-fell-back') this.#probeLinks(({ address, mptcp }) => address === fact.bind && mptcp.state === 'yes')
    else if (fact.type === 'ipv6-unreachable') inBackground(log, this.#ipv6.lookInto(fact.hag))
    else if (fact.type === 'request-refused' && isToConfirm(steer.state.admissions, fact.hag, fact.path.bind))
      inBackground(log, this.#lookForUsers(fact))
  }

  /** Finds out whether a request was refused because of its destination, or because of us. */
  async #lookForUsers({ hag, path }: Extract<ConnectionFact, { type: 'request-refused' }>): Promise<void> {
    const { engine, steer } = this.#options
    const isAnyServed = await serves(engine, hag, ({ local }) => local.address === path.bind)
    steer.report({ type: 'users-served', hag, path, isAnyServed })
  }

  /** Some of it changes by time alone. */
  async #tick(signal: AbortSignal): Promise<void> {
    const { steer, pace } = this.#options
    while (!signal.aborted) {
      await this.#clock.wait(Math.min(pace.after(tickMs), Math.max(ipv6DueAt(steer.state) - performance.now(), tickMs)), signal)
      if (signal.aborted) return
      steer.report({ type: 'tick' })
      await this.#ipv6.look()
    }
  }

  #probeLinks(isWanted: (link: LinkState) => boolean): void {
    for (const [index, link] of this.#options.steer.state.links.entries()) if (isWanted(link)) this.#links.probeNow(index)
  }

  #stateOf(hag: Hag): HagState | undefined {
    return this.#options.steer.state.hags.find((one) => isSameHag(one.hag, hag))
  }

  /** Best first. */
  #hagStates(): HagState[] {
    return this.#options.steer.target.hags.flatMap((hag) => this.#stateOf(hag) ?? [])
  }
}
