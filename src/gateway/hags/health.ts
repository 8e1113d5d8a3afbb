/** Whether a HAG is fit for use: a state machine without clock or I/O. */

/** `returning`: it was down and answers again; used before `up` only if no other HAG is up. */
export type HagState = 'unknown' | 'up' | 'returning' | 'down'

export interface HagHealth {
  readonly state: HagState
  /** Why it is down. */
  readonly reason: string
  /** Since when it has this state; milliseconds of a clock that never jumps. */
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
  /** `reached`: it accepted the connection and then was silent, so the path to it works. `askedAt`: when the probe began. */
  | { type: 'silence'; reason: string; askedAt: number; reached?: boolean }
  /** It is certain, so no further misses are needed: its answers prove it, or everything was tried and nothing came. */
  | { type: 'unfit'; reason: string }

/**
 * A lost SYN, another WAN's silence, or half a second of a busy machine must not count as a dead HAG, because its connections would be
 * reset. Probes that were open at the same time count as one miss.
 */
const silencesToFall = 3
/** A HAG that is restarted is away only for a moment, but its connections are lost anyway. */
const refusalsToFall = 2
/**
 * How long it must answer before connections move to it from another HAG, because each change gives the household another public address.
 */
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
