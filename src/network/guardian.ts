/**
 * Whatever ends a gateway, nobody may be redirected to a port on which nobody listens. The guardian is a shell that waits at the end of a pipe
 * whose other end only the gateway has. When that closes without a word it empties our chains at once, without a start of Node, and then
 * has all of ours removed. It has the lock of the gateway, too: the next one begins when it is done.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../telemetry/log.js'
import { type Lock, takeLock } from './lock.js'
import { owned } from './state.js'

export interface Guardian {
  /** The network is as it was: nothing is left to be done. */
  dismiss(): Promise<void>
}

export interface GuardianOptions {
  log: Pick<Log, 'warn'>
  /** Tests pass their own. */
  lock?: () => Promise<Lock>
  /** What takes away all of ours. */
  remove?: readonly string[]
}

/** A predecessor's guardian may have to wait for iptables, and for a start of Node on a slow processor. */
const patienceMs = 10_000
/** Of a guardian that ends: the wait until the next one doubles from here to the longest. */
const firstRestartMs = 100
const longestRestartMs = 10_000
const dismissMs = 2000

// $1: the chain, $2: the lock's file, then the command. Its standard input is the pipe, 3 the lock.
const script = `
trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE TSTP TTIN TTOU
read -r word && exit 0
chain=$1 lock=$2
shift 2
for program in iptables ip6tables; do $program -w 5 -t nat -F "$chain" >/dev/null 2>&1 & done
wait
echo 'bondsocks: the gateway ended without an end: clients go straight to their servers, and the rest is removed' >&2
"$@" </dev/null >/dev/null
rm -f "$lock"
`

/** Rejects with `LOCKED` where another gateway runs in this network namespace. */
export async function startGuardian({
  log,
  lock: take = () => takeLock('gateway', patienceMs),
  remove = [process.execPath, ...process.execArgv, process.argv[1] ?? '', 'remove'],
}: GuardianOptions): Promise<Guardian> {
  const lock = await take()
  let child: ChildProcess | undefined
  let ended: Promise<unknown> = Promise.resolve()
  let timer: NodeJS.Timeout | undefined
  let restartMs = firstRestartMs
  let isDismissed = false

  const start = () => {
    const gone = (why: string) => {
      child = undefined
      if (isDismissed) return
      log.warn(`the guardian ended and is started again: ${why}`, { milliseconds: restartMs })
      timer = setTimeout(start, restartMs).unref()
      restartMs = Math.min(restartMs * 2, longestRestartMs)
    }
    try {
      const one = spawn('sh', ['-c', script, 'bondsocks-guardian', owned.chain, lock.path, ...remove], {
        // A session of its own: what ends a terminal, a group or a session leaves it.
        detached: true,
        cwd: '/',
        stdio: ['pipe', 'ignore', 'inherit', lock.fd],
      })
      child = one
      ended = new Promise<void>((resolve) => {
        one.once('exit', (code, signal) => {
          gone(signal ?? `exit code ${code}`)
          resolve()
        })
        one.once('error', (error) => {
          if (one.pid === undefined) gone(error.message)
          resolve()
        })
      })
      one.stdin?.on('error', () => undefined)
      // It keeps nobody awake.
      one.unref()
      ;(one.stdin as unknown as { unref?(): void } | null)?.unref?.()
    } catch (error) {
      gone((error as Error).message)
    }
  }
  start()
  return {
    async dismiss() {
      isDismissed = true
      clearTimeout(timer)
      child?.stdin?.end('dismissed\n')
      const late = new AbortController()
      await Promise.race([ended, sleep(dismissMs, undefined, { signal: late.signal }).catch(() => undefined)])
      late.abort()
      child?.kill('SIGKILL')
      lock.release()
    },
  }
}
