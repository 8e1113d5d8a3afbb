/** Is a HAG fit for use? A state machine without clock or I/O. */

/** `returning`: it was down and answers again; used before `up` only where no other HAG is up. */
export type HagState = 'unknown' | 'up' | 'returning' | 'down'

export interface HagHealth {
  readonly state: HagState
  /** Why it is down. */
  readonly reason: string
  /** Of the state; milliseconds of a clock that never jumps. */
  readonly since: number
  /** Signs in a row that speak against it. */
  readonly misses: number
  /** When the last of them came. */
  readonly missedAt: number
}

export type HagSign =
  | { type: 'answer' }
  /** The connection was refused: its machine is there, its program is not. */
  | { type: 'refused' }
  /** `reached`: it took the connection and then said nothing, so it is not the way to it. `askedAt`: when the question was put. */
  | { type: 'silence'; reason: string; askedAt: number; reached?: boolean }
  /** Enough was heard, or nothing at all although everything was tried: no further misses are needed. */
  | { type: 'unfit'; reason: string }

/**
 * A lost SYN, another WAN's silence, and a machine that is busy for half a second must not count as a dead HAG: its connections would be
 * reset. One moment's silence counts once, however many questions were open in it.
 */
const silencesToFall = 3
/** A HAG that is started anew is away for a moment only, but its connections are gone anyway. */
const refusalsToFall = 2
/** How long it must answer before connections leave another HAG for it: each change is another public address for the household. */
const returnMs = 10_000

export const unknownHag: HagHealth = { state: 'unknown', reason: '', since: 0, misses: 0, missedAt: Number.NEGATIVE_INFINITY }

export function nextHag(health: HagHealth, sign: HagSign, now: number): HagHealth {
  const to = (state: HagState, reason = ''): HagHealth => ({
    ...unknownHag,
    state,
    reason,
    since: state === health.state ? health.since : now,
  })
  switch (sign.type) {
    case 'answer':
      if (health.state === 'down') return to('returning')
      if (health.state === 'returning' && now - health.since < returnMs) return { ...health, misses: 0 }
      return to('up')
    case 'unfit':
      return to('down', sign.reason)
    case 'refused':
    case 'silence': {
      if (sign.type === 'silence' && sign.askedAt < health.missedAt) return health
      const misses = health.misses + 1
      const enough = sign.type === 'refused' ? refusalsToFall : silencesToFall
      if (misses < enough && health.state !== 'returning') return { ...health, misses, missedAt: now }
      const reason = sign.type === 'refused' ? 'connection refused, nothing listens there' : sign.reason
      return { ...to('down', reason), misses, missedAt: now }
    }
  }
}
