/** How often idle connections to HAGs send a packet, so that no NAT on a WAN forgets them. */

import type { Engine } from '../../engine/contract.js'
import type { Pace } from '../pace.js'

const lookMs = 5000
/** NATs that do not follow RFC 5382 (2 h 4 min) forget after one or two minutes. */
const usualSeconds = 50
const longestSeconds = 300
/** Bytes of a keepalive probe and its answer, with headers and MPTCP's option. */
const bytesEach = 130
/** 100 MB in 30 days. */
const meteredBytesPerSecond = 100e6 / (30 * 86_400)
/** Only a few different values, because each change costs three system calls for every connection. */
const steps = [usualSeconds, 75, 110, 160, 220, longestSeconds]

/** `connections`: all, idle or not; `isMetered`: one of the WANs that they go over is. */
export function keepaliveSeconds({ connections, isMetered }: { connections: number; isMetered: boolean }): number {
  if (!isMetered) return usualSeconds
  const affordable = (connections * bytesEach) / meteredBytesPerSecond
  return steps.find((seconds) => seconds >= affordable) ?? longestSeconds
}

export interface KeepaliveOptions {
  engine: Pick<Engine, 'setKeepalive' | 'stats'>
  pace: Pace
  /** From the config; undefined: as often as is affordable. */
  seconds: number | undefined
  isMetered(): boolean
  everyMs?: number
}

/** Runs until the signal. */
export async function watchKeepalive(options: KeepaliveOptions, signal: AbortSignal): Promise<void> {
  const { engine, pace, seconds, isMetered, everyMs = lookMs } = options
  const alarm = pace.alarm()
  let current: number | undefined
  while (!signal.aborted) {
    const now = seconds ?? keepaliveSeconds({ connections: engine.stats().relaying, isMetered: isMetered() })
    if (now !== current) engine.setKeepalive(now)
    current = now
    await alarm.wait(pace.after(everyMs), signal)
  }
}
