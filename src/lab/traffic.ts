/** What the clients of programs/traffic.ts print, and their clock. */

export interface Pause {
  /** When the next byte came: see `now`. */
  until: number
  ms: number
}

export interface StreamReport {
  bytes: number
  /** No byte was lost, doubled or changed, and after we stopped, the server's last block came completely. */
  intact: boolean
  /** `stopped`: by us. `end` or an errno: the connection ended before that, at `endedAt`. */
  ending: string
  endedAt: number
  /** Pauses above `minPauseMs`. */
  pauses: Pause[]
}

export interface Dialled {
  /** See `now`. */
  at: number
  /** From the connect call to the last byte. */
  ms: number
  /** What went wrong, or nothing. */
  error?: string | undefined
}

/** Milliseconds since 1970, with fractions, from a clock that does not jump. Comparable between processes and with the times in a log. */
export const now = () => performance.timeOrigin + performance.now()

export const trafficPort = 9100
