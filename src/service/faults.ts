import type { Engine, EngineEvent } from '../engine/contract.js'
import type { Log } from '../telemetry/log.js'

const faultsAMinute = 10
const faults = new WeakMap<object, { since: number; count: number }>()

/** Logs an unexpected error with its stack; at most ten a minute, and then how many more there were. Never throws. */
export function reportFault(log: Pick<Log, 'error'>, what: string, error: unknown, now = performance.now()): void {
  const last = faults.get(log)
  const isNew = last === undefined || now - last.since >= 60_000
  if (isNew && last !== undefined && last.count > faultsAMinute) log.error(`${last.count - faultsAMinute} more unexpected errors`)
  const count = isNew ? 1 : last.count + 1
  faults.set(log, { since: isNew ? now : last.since, count })
  if (count > faultsAMinute) return
  const isError = error instanceof Error
  log.error(`${what}: ${isError ? error.message : String(error)}`, isError ? { stack: error.stack } : {})
}

/** For work that nobody awaits: logs its errors. */
export function inBackground(log: Pick<Log, 'error'>, work: Promise<unknown>): void {
  work.catch((error) => reportFault(log, 'unexpected error in what nobody waits for', error))
}

/**
 * Passes every event of a batch to `handle`. If it throws, the error is logged and the event's connection reset; the rest of the batch is
 * handled.
 */
export function eachEvent(
  engine: () => Pick<Engine, 'reset'>,
  log: Pick<Log, 'error'>,
  handle: (event: EngineEvent) => void,
): (events: readonly EngineEvent[]) => void {
  return (events) => {
    for (const event of events) {
      try {
        handle(event)
      } catch (error) {
        reportFault(log, 'unexpected error, its connection is reset', error)
        if ('connection' in event) engine().reset(event.connection)
      }
    }
  }
}
