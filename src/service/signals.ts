import type { Emit } from '../telemetry/events.js'
import type { Log } from '../telemetry/log.js'
import { reportFault } from './faults.js'

/** An orderly end after a fault must not take for ever; the guardian removes what it leaves. */
const longestEndMs = 30_000

/** A program that could not be started for want of descriptors: whoever wanted it knows (network/kernel/command.ts). */
const isFailedStart = (error: unknown) => {
  const { code = '', syscall = '' } = (error ?? {}) as NodeJS.ErrnoException
  return syscall.startsWith('spawn') && ['EMFILE', 'ENFILE'].includes(code)
}

/** The first signal asks to stop, the second not to wait for connections. An uncaught error acts like a second signal. */
export class StopSignals {
  readonly #log: Pick<Log, 'error'>
  readonly #emit: Emit
  readonly #stop = new AbortController()
  readonly #hurry = new AbortController()
  readonly stop = this.#stop.signal
  readonly hurry = this.#hurry.signal
  #fault: { error: unknown } | undefined

  // Node ends if nothing is left that could wake it up, and signal handlers do not count.
  readonly #awake = setInterval(() => undefined, 2 ** 30)

  readonly #listeners: [string, (...about: unknown[]) => void][] = [
    ...['SIGTERM', 'SIGINT'].map((name): [string, () => void] => [
      name,
      () => (this.#stop.signal.aborted ? this.#hurry : this.#stop).abort(),
    ]),
    // SIGHUP comes also when a terminal closes, which is no reason to end the LAN's connections.
    ['SIGHUP', () => this.#emit({ type: 'hangup-ignored' })],
    ['unhandledRejection', (error) => reportFault(this.#log, 'unexpected error in what nobody waits for', error)],
    [
      'uncaughtException',
      (error) => (isFailedStart(error) ? reportFault(this.#log, 'a program could not be started', error) : this.fail(error)),
    ],
  ]

  constructor(log: Pick<Log, 'error'>, emit: Emit) {
    this.#log = log
    this.#emit = emit
    for (const [name, listener] of this.#listeners) process.on(name, listener)
  }

  /** Ends the program orderly, without waiting for connections. */
  readonly fail = (error: unknown): void => {
    reportFault(this.#log, 'unexpected error, the end follows', error)
    if (this.#fault !== undefined) return
    this.#fault = { error }
    setTimeout(() => process.exit(1), longestEndMs).unref()
    this.#stop.abort()
    this.#hurry.abort()
  }

  /** Restores the signals' default effect. Throws if `fail` was called. */
  dispose(): void {
    clearInterval(this.#awake)
    for (const [name, listener] of this.#listeners) process.off(name, listener)
    if (this.#fault !== undefined) throw this.#fault.error
  }
}

const longestFarewellMs = 2000

/** To be called last: a log that nobody reads any more must not keep the program running. */
export function endsSoon(): void {
  setTimeout(() => process.exit(), longestFarewellMs).unref()
}
