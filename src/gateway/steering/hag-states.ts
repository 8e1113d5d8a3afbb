/** What is known about each HAG, and whether a silent one is dead or our WANs are. Without clock or I/O. */

import type { HagFact, HagSilent, RankedHag } from '../facts.js'
import { type HagHealth, type HagSign, nextHag, unknownHag } from '../hags/health.js'
import { type Hag, isSameHag } from '../model.js'
import { type Ipv6Reach, withIpv6Asked, withIpv6Verdict } from './ipv6.js'

export interface HagState {
  readonly hag: Hag
  readonly priority: string
  readonly health: HagHealth
  /** When an answer or a silence was last reported. */
  readonly reportedAt: number
  readonly answeredAt: number
  /** When the first of the present signs against it came. */
  readonly missedSince: number
  readonly askedAt: number
  /** When it was last asked for a whole CONNECT. */
  readonly checkedAt: number
  /** Takes greeting, request and payload at once. Found out by a probe, never with a user's connection. */
  readonly pipelines: boolean
  /** It answers greetings, but not requests: greetings no longer count. */
  readonly isBroken: boolean
  /** It was silent, but the up-links are full: only a more patient probe counts against it. */
  readonly isBusy: boolean
  /** How it went down, if it was in use before. */
  readonly fall: HagFall | undefined
  readonly ipv6: Ipv6Reach | undefined
}

/** A HAG that was in use went down. */
export interface HagFall {
  readonly at: number
  /** It accepted connections and was silent, or was found broken: our WANs are not the reason. */
  readonly isItsOwn: boolean
  /** The Internet answered without it while it was silent. */
  readonly directAnsweredAt: number | undefined
  /** The last probe that it did not answer, since then. */
  readonly lastSilenceAskedAt: number
  /**
   * `refused`: its machine answers, so dead connections find out by themselves. `silence`: another HAG or, without one, the Internet
   * answers, so our WANs are not the reason, and its connections would wait in vain. undefined: our WANs may be the reason.
   */
  readonly death: 'refused' | 'silence' | undefined
}

/** If a HAG answers within so long of another's fall, the WANs work. */
const sameTimeMs = 2000
/** After trouble it is asked at once, but not more often than a HAG in use with connections. */
const troubleAskMs = 500
/** How often to ask it for a whole CONNECT, to see whether it does more than greet. */
export const checkMs = { free: 5 * 60_000, metered: 60 * 60_000 }
/** Extra probes at most once a second, whatever the clients meet. */
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
  // Now the answers of the others decide whether it is dead.
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
      // If nothing else is known about it, its users may have the same trouble.
      return withAnswer(state, now, !state.isBroken && state.health.state !== 'unknown')
    case 'hag-refused':
      return withSign({ ...state, reportedAt: now }, { type: 'refused' }, now)
    case 'hag-silent':
      return withSilence({ ...state, reportedAt: now }, fact, now)
    case 'hag-unreachable':
      return withSign(state, { type: 'unfit', reason: fact.reason }, now)
    case 'hag-request-answered': {
      const { pipelines = state.pipelines } = fact
      // Ask it for a greeting at once: that it answers requests does not prove that it accepts new connections.
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
  // A full up-link does not mean that the HAG is dead: its connections' bytes are acknowledged, only packets of new connections get lost. Only
  // silence can be due to a queue, no other failure.
  if (fact.hasTimedOut && !fact.isPatient && state.health.state !== 'down') {
    // It answered another probe meanwhile.
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
  // Ask a HAG that is back for a whole CONNECT at once: it may have been restarted with another config.
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

/** Marks HAGs whose falls were just decided to be deaths. */
function judgeFalls(all: readonly HagState[]): readonly HagState[] {
  return all.map((one) => {
    if (one.fall === undefined || one.fall.death !== undefined || verdictOn(one, all) !== 'dead') return one
    return { ...one, fall: { ...one.fall, death: 'silence' } }
  })
}

/**
 * Whether a silent HAG is dead, or our WANs have failed. `spared`: our WANs had failed, or it cannot be told any more. While it is not
 * known its connections wait, because there is nowhere else to go.
 */
function verdictOn({ hag, fall, missedSince }: HagState, all: readonly HagState[]): 'dead' | 'spared' | 'undecided' {
  if (fall === undefined) return 'spared'
  // The Internet answers without a HAG. If the HAG is still silent when it is asked once more, it is dead: clients can begin anew without it.
  if (fall.directAnsweredAt !== undefined && fall.lastSilenceAskedAt > fall.directAnsweredAt) return 'dead'
  for (const other of all) {
    if (isSameHag(other.hag, hag)) continue
    if (other.answeredAt > fall.at) return other.answeredAt - fall.at < sameTimeMs ? 'dead' : 'spared'
    // Another one has answered since it fell silent. If it accepted connections or was broken, it is enough that there is another one.
    if (other.health.state === 'up' && (fall.isItsOwn || other.answeredAt > missedSince)) return 'dead'
  }
  return 'undecided'
}

/** A direct connection was answered: HAGs whose falls are undecided are asked once more, at once. */
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

/** A connection had trouble with it: ask it at once, for a whole CONNECT if its answer to one was strange. */
export function withTrouble(state: HagState, about: 'connection' | 'request', now: number): HagState {
  const askedAt = Math.min(state.askedAt, now - troubleAskMs)
  const checkedAt = about === 'request' ? Math.min(state.checkedAt, now - checkMs.free + soonMs) : state.checkedAt
  const isKnown = state.reportedAt === never && state.askedAt === askedAt && state.checkedAt === checkedAt
  return isKnown ? state : { ...state, reportedAt: never, askedAt, checkedAt }
}

/** It could not be asked for a CONNECT: ask soon again, unless that happens often anyway. */
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
