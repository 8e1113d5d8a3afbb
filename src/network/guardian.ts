/**
 * However a gateway ends, nobody may be redirected to a port on which nobody listens. The guardian is a shell that reads from a pipe whose
 * other end only the gateway holds. If the pipe closes without a message, the guardian empties our chains at once, without waiting for Node
 * to start, and then runs `remove`. It also holds the gateway's lock, so the next gateway begins when it is done. A HAG has a guardian for
 * its rule.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Emit } from '../telemetry/events.js'
import { takeLock } from './lock.js'
import { owned } from './state.js'

export interface Guardian {
  /** The network is as it was, so the guardian has nothing to do. */
  dismiss(): Promise<void>
}

/** A predecessor's guardian may have to wait for iptables, and for Node to start on a slow processor. */
const patienceMs = 10_000
/** If a guardian ends, the wait until the next one doubles from this to the longest. */
const firstRestartMs = 100
const longestRestartMs = 10_000
const dismissMs = 2000

const waits = `
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
trap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE TSTP TTIN TTOU
read -r word && exit 0
`

/*
 * $1: the lock's file, and then a command, which is tried again: a service manager's SIGTERM to all of a failed unit ends it (Node does not
 * inherit that signals are ignored), and others may hold the lock of iptables. Descriptor 3 is the lock. What is said comes last: whoever
 * should read it may be stuck.
 */
const forGateway = `${waits}
lock=$1
shift
for family in ip ip6; do
  \${family}tables -w 5 -t nat -F ${owned.chain} >/dev/null 2>&1 &
  grep -qsx nat /proc/net/\${family}_tables_names && \${family}tables-legacy -w 5 -t nat -F ${owned.chain} >/dev/null 2>&1 &
done
wait
for try in 1 2 3 4 5; do
  end='the rest is removed'
  why=$("$@" 2>&1 </dev/null >/dev/null) && break
  end="the rest is not removed: $why"
  sleep 1
done
rm -f "$lock"
exec 3>&-
echo "bondsocks: the gateway ended unexpectedly: clients go straight to their servers, and $end" >&2
`

/*
 * $1: the HAG's port. The copy of the main table is not followed any more, unless other HAGs use it: each has a rule for its own port. One at the
 * same port makes its rule anew. The limit of subflows does no harm.
 */
const forHag = `${waits}
had=
for family in -4 -6; do
  for rule in 1 2 3 4; do ip $family rule del sport $1 lookup ${owned.hagTable} && had=rule || break; done
  ip -N $family rule show | grep -q ' lookup ${owned.hagTable}$' || ip $family route flush table ${owned.hagTable}
done >/dev/null 2>&1
[ -z "$had" ] || echo 'bondsocks: the HAG ended unexpectedly: its rule is removed' >&2
`

/** Rejects with `LOCKED` if another gateway runs in this network namespace. */
export async function guardGateway(emit: Emit): Promise<Guardian> {
  const lock = await takeLock('gateway', patienceMs)
  const remove = [process.execPath, ...process.execArgv, process.argv[1] ?? '', 'remove']
  const guardian = startGuardian(emit, forGateway, [lock.path, ...remove], lock.fd ?? 'ignore')
  return {
    async dismiss() {
      await guardian.dismiss()
      lock.release()
    },
  }
}

export function guardHag(emit: Emit, port: number): Guardian {
  return startGuardian(emit, forHag, [String(port)], 'ignore')
}

function startGuardian(emit: Emit, script: string, args: readonly string[], lock: number | 'ignore'): Guardian {
  let child: ChildProcess | undefined
  let ended: Promise<unknown> = Promise.resolve()
  let timer: NodeJS.Timeout | undefined
  let restartMs = firstRestartMs
  let isDismissed = false

  const start = () => {
    const gone = (why: string) => {
      child = undefined
      if (isDismissed) return
      emit({ type: 'guardian-ended', reason: why, restartMs })
      timer = setTimeout(start, restartMs).unref()
      restartMs = Math.min(restartMs * 2, longestRestartMs)
    }
    try {
      const one = spawn('/bin/sh', ['-c', script, 'bondsocks-guardian', ...args], {
        // A session of its own, so that it survives the end of a terminal, process group or session.
        detached: true,
        cwd: '/',
        stdio: ['pipe', 'ignore', 'inherit', lock],
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
      // It must not keep the process alive.
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
    },
  }
}
