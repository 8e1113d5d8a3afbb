/** What the clients of programs/traffic.ts print, and the clock of their times. */

export interface Pause {
  /** When the byte came that ended it: see `now`. */
  until: number
  ms: number
}

export interface StreamReport {
  bytes: number
  /** No byte was lost, doubled or changed, and after a stop by us the server's last block came whole. */
  intact: boolean
  /** `stopped` by us; `end`, or an errno, where the connection ended before that, at `endedAt`. */
  ending: string
  endedAt: number
  /** Those above `leastPauseMs`. */
  pauses: Pause[]
}

export interface Dialled {
  /** See `now`. */
  at: number
  /** From the connect call to the last byte. */
  ms: number
  /** What went wrong, or nothing. */
  error?: string
}

/** Milliseconds since 1970, in fractions, by a clock that does not jump: comparable among processes and with the stamps of a log. */
export const now = () => performance.timeOrigin + performance.now()

export const trafficPort = 9100
