/** What is known of each HAG, and whether one that fell silent is dead or our WANs are. Without clock or I/O. */

import type { HagFact, HagSilent, RankedHag } from '../facts.js'
import { type HagHealth, type HagSign, nextHag, unknownHag } from '../hags/health.js'
import { type Hag, isSameHag } from '../model.js'
import { type Ipv6Reach, withIpv6Asked, withIpv6Verdict } from './ipv6.js'

export interface HagState {
  readonly hag: Hag
  readonly priority: string
  readonly health: HagHealth
  /** When an answer, or that none came, was last reported. */
  readonly reportedAt: number
  readonly answeredAt: number
  /** The first of the signs in a row that speak against it. */
  readonly missedSince: number
  readonly askedAt: number
  /** When it was last asked for a whole CONNECT. */
  readonly checkedAt: number
  /** Takes greeting, request and payload in one go. Found out by a probe: no user's connection is made the test. */
  readonly pipelines: boolean
  /** Greets, but does not do what it is asked: greetings count no more. */
  readonly isBroken: boolean
  /** Silent, but over full up-links: only a probe with more patience counts against it. */
  readonly isBusy: boolean
  /** How it went down, if it was in use before. */
  readonly fall: HagFall | undefined
  readonly ipv6: Ipv6Reach | undefined
}

/** A HAG that was in use went down. */
export interface HagFall {
  readonly at: number
  /** It took connections and said nothing, or was found broken: it is not our WANs. */
  readonly isItsOwn: boolean
  /** The Internet answered without it while it was silent. */
  readonly directAnsweredAt: number | undefined
  /** The last probe that it did not answer, since then. */
  readonly lastSilenceAskedAt: number
  /**
   * `refused`: its machine answers, so connections that are dead find out by themselves. `silence`: another HAG answers, or the Internet does
   * without one, so it is not our WANs: its connections would wait for nothing. undefined: it may be our WANs.
   */
  readonly death: 'refused' | 'silence' | undefined
}

/** What one HAG says within so long of another's fall speaks for the WANs. */
const sameTimeMs = 2000
/** After trouble it is asked at once, but not more often than a HAG in use of which connections are relayed. */
const troubleAskMs = 500
/** How often it is asked whether it does more than greet: a whole CONNECT. */
export const checkMs = { free: 5 * 60_000, metered: 60 * 60_000 }
/** Out of turn at most once a second, whatever the clients meet. */
const soonMs = 1000

export function withHags(known: readonly HagState[], hags: readonly RankedHag[]): HagState[] {
  return hags.map(({ hag, priority }) => {
    const before = known.find((one) => isSameHag(one.hag, hag))
    return before === undefined ? firstHag(hag, priority) : { ...before, hag, priority }
  })
}

const never = Number.NEGATIVE_INFINITY

const firstHag = (hag: Hag, priority: string): HagState => ({
  hag,
  priority,
  health: unknownHag,
  reportedAt: never,
  answeredAt: never,
  missedSince: 0,
  askedAt: never,
  checkedAt: never,
  pipelines: false,
  isBroken: false,
  isBusy: false,
  fall: undefined,
  ipv6: undefined,
})

export function withHagFact(all: readonly HagState[], fact: HagFact, now: number): readonly HagState[] {
  const before = all.find(({ hag }) => isSameHag(hag, fact.hag))
  if (before === undefined) return all
  const after = hagAfter(before, fact, now)
  const next = judgeFalls(all.map((one) => (one === before ? after : one)))
  const hasFallen = after.fall !== undefined && before.fall === undefined && after.fall.death === undefined
  if (!hasFallen || verdictOn(after, next) !== 'undecided') return next
  // What the others say now decides whether it is dead.
  return next.map((one) => (one !== after && one.health.state === 'up' ? withTrouble(one, 'connection', now) : one))
}

function hagAfter(state: HagState, fact: HagFact, now: number): HagState {
  switch (fact.type) {
    case 'hag-asked':
      return fact.about === 'greeting' ? { ...state, askedAt: now } : { ...state, checkedAt: now }
    case 'hag-not-asked':
      return { ...state, reportedAt: now }
    case 'hag-answered':
      return withAnswer(state, now, !state.isBroken)
    case 'hag-turned-away':
      // Before anything else is known of it, its users may fare no better than we.
      return withAnswer(state, now, !state.isBroken && state.health.state !== 'unknown')
    case 'hag-refused':
      return withSign({ ...state, reportedAt: now }, { type: 'refused' }, now)
    case 'hag-silent':
      return withSilence({ ...state, reportedAt: now }, fact, now)
    case 'hag-unreachable':
      return withSign(state, { type: 'unfit', reason: fact.reason }, now)
    case 'hag-request-answered': {
      const { pipelines = state.pipelines } = fact
      // It is asked for a greeting at once: that it answers requests does not say that it takes new connections.
      return state.isBroken ? { ...state, pipelines, isBroken: false, askedAt: never } : { ...state, pipelines }
    }
    case 'hag-request-broken': {
      if (state.isBroken) return { ...state, pipelines: false }
      return withSign({ ...state, pipelines: false, isBroken: true, askedAt: never }, { type: 'unfit', reason: fact.reason }, now)
    }
    case 'hag-request-unknown':
    case 'admission-asked':
      return state
    case 'hag-ipv6-asked':
      return { ...state, ipv6: withIpv6Asked(state.ipv6, fact.destination, now) }
    case 'hag-ipv6-answered':
      return { ...state, ipv6: withIpv6Verdict(state.ipv6, fact.verdict, now) }
  }
}

function withAnswer(state: HagState, now: number, counts: boolean): HagState {
  const answered = { ...state, reportedAt: now, answeredAt: now, isBusy: false }
  return counts ? withSign(answered, { type: 'answer' }, now) : answered
}

function withSilence(state: HagState, fact: HagSilent, now: number): HagState {
  // A full up-link is no death: what the HAG's connections send is acknowledged, only new packets have it hard. What answers with anything
  // else than nothing is not kept from it by a queue.
  if (fact.hasTimedOut && !fact.isPatient && state.health.state !== 'down') {
    // It answered another probe while the WAN was being looked at.
    if (state.answeredAt > fact.silentAt) return { ...state, isBusy: false }
    if (fact.isBehindFullWan) return { ...state, isBusy: true }
    return withSign({ ...state, isBusy: false }, signOf(fact), now)
  }
  const { fall } = state
  const lastSilenceAskedAt = Math.max(fall?.lastSilenceAskedAt ?? never, fact.askedAt)
  return withSign(fall === undefined ? state : { ...state, fall: { ...fall, lastSilenceAskedAt } }, signOf(fact), now)
}

const signOf = ({ reason, askedAt, hasConnected }: HagSilent): HagSign => ({
  type: 'silence',
  reason,
  askedAt,
  reached: hasConnected,
})

function withSign(state: HagState, sign: HagSign, now: number): HagState {
  const before = state.health
  const health = nextHag(before, sign, now)
  const missedSince = before.misses === 0 && health.misses > 0 ? now : state.missedSince
  if (health.state === before.state) return { ...state, health, missedSince }
  // One that is back is asked for a whole CONNECT at once: it may have been started anew with another config.
  if (health.state === 'returning') return { ...state, health, missedSince, checkedAt: never, fall: undefined }
  // One that was never in use has no connections to reset.
  if (health.state !== 'down' || before.state === 'unknown') return { ...state, health, missedSince }
  const fall: HagFall = {
    at: now,
    isItsOwn: sign.type === 'unfit' || (sign.type === 'silence' && sign.reached === true),
    directAnsweredAt: undefined,
    lastSilenceAskedAt: never,
    death: sign.type === 'refused' ? 'refused' : undefined,
  }
  return { ...state, health, missedSince, fall }
}

/** HAGs whose falls have just become deaths are marked. */
function judgeFalls(all: readonly HagState[]): readonly HagState[] {
  return all.map((one) => {
    if (one.fall === undefined || one.fall.death !== undefined || verdictOn(one, all) !== 'dead') return one
    return { ...one, fall: { ...one.fall, death: 'silence' } }
  })
}

/**
 * Is a HAG that fell silent dead, or have our WANs failed? `spared`: it was our WANs, or nobody can tell any more. While nobody knows its
 * connections may as well wait: there is nowhere else to go.
 */
function verdictOn({ hag, fall, missedSince }: HagState, all: readonly HagState[]): 'dead' | 'spared' | 'undecided' {
  if (fall === undefined) return 'spared'
  // The Internet answers without a HAG. One that is still silent when it is asked once more is dead: clients can begin anew without it.
  if (fall.directAnsweredAt !== undefined && fall.lastSilenceAskedAt > fall.directAnsweredAt) return 'dead'
  for (const other of all) {
    if (isSameHag(other.hag, hag)) continue
    if (other.answeredAt > fall.at) return other.answeredAt - fall.at < sameTimeMs ? 'dead' : 'spared'
    // Another one has answered since it fell silent. If it took connections, or was broken, it is enough that there is another one.
    if (other.health.state === 'up' && (fall.isItsOwn || other.answeredAt > missedSince)) return 'dead'
  }
  return 'undecided'
}

/** A connection around the HAGs was answered: those whose falls are undecided are asked once more, at once. */
export function withDirectAnswer(all: readonly HagState[], now: number): readonly HagState[] {
  const isAsked = (one: HagState) =>
    one.fall !== undefined &&
    one.fall.death === undefined &&
    one.fall.directAnsweredAt === undefined &&
    verdictOn(one, all) === 'undecided'
  if (!all.some(isAsked)) return all
  return all.map((one) => {
    if (one.fall === undefined || !isAsked(one)) return one
    return { ...one, fall: { ...one.fall, directAnsweredAt: now }, reportedAt: never, askedAt: never }
  })
}

/** A connection had trouble with it: it is asked at once, for a whole CONNECT if its answer to one was strange. */
export function withTrouble(state: HagState, about: 'connection' | 'request', now: number): HagState {
  const askedAt = Math.min(state.askedAt, now - troubleAskMs)
  const checkedAt = about === 'request' ? Math.min(state.checkedAt, now - checkMs.free + soonMs) : state.checkedAt
  const isKnown = state.reportedAt === never && state.askedAt === askedAt && state.checkedAt === checkedAt
  return isKnown ? state : { ...state, reportedAt: never, askedAt, checkedAt }
}

/** It could not be asked for a CONNECT: soon again, unless it is asked often anyway. */
export function withoutCheck(state: HagState, metered: boolean, now: number): HagState {
  const afterMs = metered ? checkMs.metered : checkMs.free
  return state.isBroken ? state : { ...state, checkedAt: now - afterMs + soonMs }
}

/** Those that are not down, best first: one that was down and has only just answered again comes last. */
export function hagsThere(all: readonly HagState[]): HagState[] {
  return [
    ...all.filter(({ health }) => health.state === 'up' || health.state === 'unknown'),
    ...all.filter(({ health }) => health.state === 'returning'),
  ]
}
