/**
 * If MPTCP's first packets vanished on some path, the kernel remembers that and uses MPTCP on no WAN. This notices it and makes the kernel
 * forget.
 */
import { readFile } from 'node:fs/promises'
import type { Emit } from '../../telemetry/events.js'
import type { Pace } from '../pace.js'

const lookMs = 10_000

/** Connections that became plain TCP only because of that memory (MPTcpExtMPCapableSYNTXDisabled, Linux 6.12 and later). */
export function turnedIntoTcp(netstat: string): number {
  const [names = [], values = []] = netstat
    .split('\n')
    .filter((line) => line.startsWith('MPTcpExt:'))
    .map((line) => line.trim().split(/\s+/))
  const at = names.indexOf('MPCapableSYNTXDisabled')
  return at < 0 ? 0 : Number(values[at] ?? 0)
}

export interface BlackHoleOptions {
  /** Makes the kernel forget; rejects with a system error. */
  forget(): Promise<void>
  emit: Emit
  pace: Pace
  /** Tests pass their own: the text of /proc/net/netstat. */
  read?: () => Promise<string>
  everyMs?: number
}

/** Runs until the signal. Never rejects. */
export async function watchBlackHole(options: BlackHoleOptions, signal: AbortSignal): Promise<void> {
  const { forget, emit, pace, everyMs = lookMs } = options
  const alarm = pace.alarm()
  const read = options.read ?? (() => readFile('/proc/self/net/netstat', 'utf8'))
  let before: number | undefined
  while (!signal.aborted) {
    const now = await read().then(turnedIntoTcp, () => before)
    if (before !== undefined && now !== undefined && now > before) {
      emit({ type: 'kernel-black-hole', count: now - before })
      await forget().catch((error: Error) => emit({ type: 'kernel-black-hole-stays', reason: error.message }))
    }
    before = now
    await alarm.wait(pace.after(everyMs), signal)
  }
}
