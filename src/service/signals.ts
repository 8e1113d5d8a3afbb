import type { Log } from '../telemetry/log.js'
import { reportFault } from './faults.js'

/** An orderly end after a fault must not last for ever; the guardian sees to what it leaves. */
const longestEndMs = 30_000

/** The first signal asks to stop, the second not to wait for connections. So does an error that nobody has caught. */
export class StopSignals {
  readonly #log: Pick<Log, 'error' | 'info'>
  readonly #stop = new AbortController()
  readonly #hurry = new AbortController()
  readonly stop = this.#stop.signal
  readonly hurry = this.#hurry.signal
  #fault: { error: unknown } | undefined

  // Node ends when nothing is left that could wake it up, and a signal handler does not count as such.
  readonly #awake = setInterval(() => undefined, 2 ** 30)

  readonly #listeners: [string, (...about: unknown[]) => void][] = [
    ...['SIGTERM', 'SIGINT'].map((name): [string, () => void] => [
      name,
      () => (this.#stop.signal.aborted ? this.#hurry : this.#stop).abort(),
    ]),
    // Also the end of a terminal, which is no reason to take the LAN's connections down.
    ['SIGHUP', () => this.#log.info('SIGHUP is ignored: SIGTERM stops')],
    ['unhandledRejection', (error) => reportFault(this.#log, 'unexpected error in what nobody waits for', error)],
    ['uncaughtException', (error) => this.fail(error)],
  ]

  constructor(log: Pick<Log, 'error' | 'info'>) {
    this.#log = log
    for (const [name, listener] of this.#listeners) process.on(name, listener)
  }

  /** Ends the program in good order, without waiting for connections. */
  readonly fail = (error: unknown): void => {
    reportFault(this.#log, 'unexpected error, the end follows', error)
    if (this.#fault !== undefined) return
    this.#fault = { error }
    setTimeout(() => process.exit(1), longestEndMs).unref()
    this.#stop.abort()
    this.#hurry.abort()
  }

  /** Gives the signals back their default effect; throws where `fail` was called. */
  dispose(): void {
    clearInterval(this.#awake)
    for (const [name, listener] of this.#listeners) process.off(name, listener)
    if (this.#fault !== undefined) throw this.#fault.error
  }
}

const longestFarewellMs = 2000

/** To be called at the end of all: a log that nobody reads any more must not keep the program. */
export function endsSoon(): void {
  setTimeout(() => process.exit(), longestFarewellMs).unref()
}
