/** What the two long-running roles have in common. */
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { LimitTexts } from '../config/defaults.js'
import type { Engine, EngineEvent } from '../native/index.js'
import type { Log } from '../telemetry/log.js'
import { BondsocksError } from './errors.js'

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

const faultsAMinute = 10
const faults = new WeakMap<object, { since: number; count: number }>()

/** Logs an error that should not be, with its stack, ten a minute at most, and then how many more there were. Never throws. */
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

/** For what goes on while nobody waits for it: a fault in it is logged. */
export function inBackground(log: Pick<Log, 'error'>, work: Promise<unknown>): void {
  work.catch((error) => reportFault(log, 'unexpected error in what nobody waits for', error))
}

/**
 * Hands every event of a batch to `handle` by itself. An error in one ends the connection that it is about, and is logged; the rest of the
 * batch is handled.
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

/**
 * To be called when all is loaded: what that has left behind goes (3 MB), and what is hot from now on is worth being compiled to optimized
 * code (see main.ts).
 */
export function hasStarted(): void {
  // Contexts that are made from now on have a `gc`.
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  setFlagsFromString('--opt')
}

/** Settles when the signal is aborted, at once where it has been. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

const longestFarewellMs = 2000

/** To be called at the end of all: a log that nobody reads any more must not keep the program. */
export function endsSoon(): void {
  setTimeout(() => process.exit(), longestFarewellMs).unref()
}

/** Waits until the engine has no connection left, at most so many seconds, or until told to hurry. Returns how many are left. */
export async function drain(engine: Engine, seconds: number, hurry: AbortSignal): Promise<number> {
  const deadline = performance.now() + seconds * 1000
  let left = engine.stats().connections
  while (left > 0 && performance.now() < deadline && !hurry.aborted) {
    await sleep(50, undefined, { signal: hurry }).catch(() => undefined)
    left = engine.stats().connections
  }
  return left
}

/** What a failed `listen` means to the person who wrote the config. */
export function listenError(address: string, port: number, cause: unknown): BondsocksError {
  const { code = String(cause) } = cause as NodeJS.ErrnoException
  const what =
    {
      EADDRINUSE: `port ${port} is taken by another program: \`ss -ltnp 'sport = :${port}'\` shows it; stop it, or choose another listen.port`,
      EACCES: `port ${port} is not allowed: run as root, or choose a listen.port above 1023`,
      EADDRNOTAVAIL: `${address} is no address of this machine: choose another listen.address`,
    }[code] ?? `cannot listen on ${address} port ${port}: ${code}`
  return new BondsocksError('LISTEN', what, { cause })
}

const raiseLimit = 'raise the limit: `ulimit -n`, LimitNOFILE='

export function logLimit({ limited, cause }: Extract<EngineEvent, { type: 'limit' }>, limits: LimitTexts, log: Log): void {
  const texts: Record<typeof cause, string> = {
    connections: `accepting pauses: there are ${limits.connections}`,
    descriptors: `accepting pauses: none of ${limits.descriptors} is left (${raiseLimit})`,
    memory: 'accepting pauses: the kernel has no memory left for sockets (see net.ipv4.tcp_mem)',
    pipes: `some connections take more processor time: ${limits.descriptors} are too few for their pipes (${raiseLimit})`,
  }
  if (limited) log.warn(texts[cause], { cause })
  else log.info('accepting goes on', { cause })
}
