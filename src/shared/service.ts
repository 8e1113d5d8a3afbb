/** What the two long-running roles have in common. */
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Engine, EngineEvent } from '../native/index.js'
import type { Log } from '../telemetry/log.js'
import { BondsocksError } from './errors.js'

/** The first signal asks to stop, the second not to wait for connections. */
export class StopSignals {
  readonly #stop = new AbortController()
  readonly #hurry = new AbortController()
  readonly #listener = () => (this.#stop.signal.aborted ? this.#hurry : this.#stop).abort()
  // A terminal that closes must not leave the network set up, hence SIGHUP.
  readonly #names = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const
  readonly stop = this.#stop.signal
  readonly hurry = this.#hurry.signal

  // Node ends when nothing is left that could wake it up, and a signal handler does not count as such.
  readonly #awake = setInterval(() => undefined, 2 ** 30)

  constructor() {
    for (const name of this.#names) process.on(name, this.#listener)
  }

  /** Gives the signals back their default effect. */
  dispose(): void {
    clearInterval(this.#awake)
    for (const name of this.#names) process.off(name, this.#listener)
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

const limitTexts: Record<Extract<EngineEvent, { type: 'limit' }>['cause'], string> = {
  connections: 'max_connections is reached',
  descriptors: 'no descriptor is left (raise the limit: `ulimit -n`, LimitNOFILE=)',
  memory: 'the kernel has no memory left for sockets',
}

export function logLimit({ limited, cause }: Extract<EngineEvent, { type: 'limit' }>, log: Log): void {
  if (limited) log.warn(`accepting pauses: ${limitTexts[cause]}`, { cause })
  else log.info('accepting goes on', { cause })
}
