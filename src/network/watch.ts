/** Tells when the kernel's links, addresses, routes or rules change: a long-lived `ip monitor`, started again when it dies. */
import { pause } from '../shared/pause.js'
import type { Log } from '../telemetry/log.js'
import { streamCommand } from './command.js'

/** After a monitor that died at once: the wait doubles from here to the longest. */
const firstRestartMs = 200
const longestRestartMs = 10_000
/** A monitor that lived this long was a good one. */
const soundMs = 5000

export interface WatchOptions {
  /** Called once for every burst of lines, and after each restart, because changes may have gone by unseen. */
  onChange(): void
  log: Log
  /** Tests pass their own: runs a command, hands over what it prints, ends it on the signal, resolves with why it ended. */
  stream?: (argv: readonly string[], onOutput: () => void, signal: AbortSignal) => Promise<string>
}

/** Runs until the signal. Never rejects. */
export async function watchKernel({ onChange, log, stream = streamCommand }: WatchOptions, signal: AbortSignal): Promise<void> {
  let restartMs = firstRestartMs
  while (!signal.aborted) {
    const startedAt = performance.now()
    const why = await stream(['ip', '-o', 'monitor', 'link', 'address', 'route', 'rule'], onChange, signal)
    if (signal.aborted) return
    restartMs = performance.now() - startedAt >= soundMs ? firstRestartMs : Math.min(restartMs * 2, longestRestartMs)
    log.warn(`the watch on the network ended and is started again: ${why}`, { milliseconds: restartMs })
    await pause(restartMs, signal)
    onChange()
  }
}
