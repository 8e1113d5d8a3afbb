/** Whether a WAN is fit for use: a state machine without clock or I/O, from signs to the next state and the next probe. */
import { isUsable, type WanState } from '../model.js'

export interface Health {
  readonly state: WanState
  /** When this state began. */
  readonly since: number
  /** Why it is not up. */
  readonly reason: string
  /** False: no carrier, no address; nothing is sent. */
  readonly link: boolean
  /** Smoothed time to connect, about one round trip; milliseconds. */
  readonly rttMs: number | undefined
  /** The smallest of them, without queues; rises slowly again, because paths change. */
  readonly minRttMs: number | undefined
  /** Probes in a row with an answer, and without one. */
  readonly answers: number
  readonly silences: number
  /** The times within the last minute at which it went from usable to down; milliseconds of a clock that never jumps. */
  readonly falls: readonly number[]
  /** The times within the last minutes at which it came back so soon after a fall that it had only paused. */
  readonly pauses: readonly number[]
}

export type Sign =
  | { type: 'link'; present: boolean; reason: string }
  | { type: 'answer'; rttMs: number }
  /**
   * No HAG answered in time, and nothing else came in over the WAN either. `isSure`: a steady stream had just stopped, and more than one
   * question went unanswered.
   */
  | { type: 'silence'; reason: string; isSure?: boolean }

/** At 1 % loss, three probes in a row are lost once in a million; two once in ten thousand, which is every few hours. */
const silencesToFall = 3
const fallMemoryMs = 60_000
/** A radio that changes its cell is away for at most so long. */
const longestPauseMs = 3000
const pauseMemoryMs = 10 * 60_000
const maxGrace = 8
/** After so many falls within a minute, one more answer is wanted for each before it counts as up again. */
const maxExtraAnswers = 3

export const unknown: Health = {
  state: 'probing',
  since: 0,
  reason: 'not known yet',
  link: true,
  rttMs: undefined,
  minRttMs: undefined,
  answers: 0,
  silences: 0,
  falls: [],
  pauses: [],
}

/** How many answers in a row are wanted before it counts as up: one, and one more for each recent fall. */
const answersWanted = (falls: readonly number[]) => 1 + Math.min(falls.length, maxExtraAnswers)

/** How many more answers it needs to be up; 0 if it is. */
export function answersMissing(health: Health): number {
  return isUsable(health) ? 0 : Math.max(answersWanted(health.falls) - health.answers, 0)
}

export function nextHealth(health: Health, sign: Sign, now: number): Health {
  const next = afterSign(health, sign, now)
  const since = next.state === health.state ? health.since : now
  return next.since === since ? next : { ...next, since }
}

function afterSign(health: Health, sign: Sign, now: number): Health {
  const falls = health.falls.filter((at) => now - at < fallMemoryMs)
  const fallen = isUsable(health) ? [...falls, now] : falls
  switch (sign.type) {
    case 'link':
      if (!sign.present)
        return { ...health, state: 'down', link: false, reason: sign.reason, answers: 0, silences: 0, falls: fallen }
      // The path may have changed, so earlier measurements do not count.
      return health.link ? health : { ...unknown, reason: sign.reason, falls }
    case 'answer': {
      // Late news of a probe from before the link went away.
      if (!health.link) return health
      const rttMs = health.rttMs === undefined ? sign.rttMs : 0.75 * health.rttMs + 0.25 * sign.rttMs
      // Measured in whole milliseconds: from 0 it would never rise.
      const minRttMs = Math.min(Math.max(sign.rttMs, 0.5), 1.01 * (health.minRttMs ?? Number.POSITIVE_INFINITY))
      const answers = health.answers + 1
      const enough = isUsable(health) || answers >= answersWanted(falls)
      const state = enough ? 'up' : health.state
      const hasPaused =
        health.state === 'down' && state === 'up' && now - (falls.at(-1) ?? Number.NEGATIVE_INFINITY) < longestPauseMs
      const pauses = [...health.pauses.filter((at) => now - at < pauseMemoryMs), ...(hasPaused ? [now] : [])]
      return { ...health, state, reason: enough ? '' : health.reason, rttMs, minRttMs, answers, silences: 0, falls, pauses }
    }
    case 'silence': {
      if (!health.link) return health
      const silences = health.silences + 1
      const state =
        silences >= silencesToFall || (sign.isSure && isUsable(health))
          ? 'down'
          : health.state === 'up'
            ? 'degraded'
            : health.state
      return { ...health, state, reason: sign.reason, answers: 0, silences, falls: state === 'down' ? fallen : falls }
    }
  }
}

const steadyMs = 1000
const impatientMs = 200
/** Time between probes of a WAN that answers again: a second after its first answer it should be in use, even if it fell often. */
const returningMs = 100
/** A SYN a minute into a metered line is below 4 MB a month. */
const longestDownMs = { metered: 60_000, unmetered: 500 }
/** Every so many probes of a WAN that is down wait longer, because it may be back over a longer path. */
const patientTry = 4

/** When to probe next, and how long to wait for the answer; milliseconds. Undefined: not before the link is back. */
export function nextProbe(health: Health, metered: boolean): { afterMs: number; timeoutMs: number } | undefined {
  const { state, link, rttMs, answers, silences } = health
  if (!link) return undefined
  // If the RTT is unknown, wait 1 s. If known, 4 x RTT: longer than usual queueing, shorter than the SYN retransmission (1 s, RFC 6298).
  const timeoutMs = rttMs === undefined ? steadyMs : Math.min(Math.max(4 * rttMs, 300), steadyMs)
  if (state === 'up') return { afterMs: steadyMs, timeoutMs }
  if (state === 'degraded') return { afterMs: 0, timeoutMs }
  if (answers > 0) return { afterMs: Math.max(returningMs - (rttMs ?? 0), 0), timeoutMs }
  if (state === 'probing') return { afterMs: silences === 0 ? 0 : impatientMs, timeoutMs }
  const longestMs = longestDownMs[metered ? 'metered' : 'unmetered']
  // Short, so that a SYN that is lost just before the WAN is back delays the next one only a little.
  return {
    afterMs: Math.min(impatientMs * 2 ** (silences - silencesToFall + 1), longestMs),
    timeoutMs: silences % patientTry === 0 ? steadyMs : timeoutMs,
  }
}

/**
 * When a steady stream of received bytes has stopped, and how long to wait for an answer then; milliseconds. If nothing arrives there is no
 * queue, so the smallest round trip counts. After a WAN only paused, it gets twice the time for some minutes.
 */
export function stopPatience({ minRttMs = 100, pauses }: Health): { stopMs: number; timeoutMs: number } {
  const grace = Math.min(2 ** pauses.length, maxGrace)
  return { stopMs: grace * Math.max(1.2 * minRttMs, 90), timeoutMs: grace * Math.max(2 * minRttMs + 30, 90) }
}
