/** What a redirector costs while it has no client, as during most of the day in a home. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { busySeconds, type Figure } from './figure.js'

/** How often its threads and those of its children slept and were woken (voluntary context switches). */
function wakeUps(pid: number): number {
  const threads = `/proc/${pid}/task`
  if (!existsSync(threads)) return 0
  return readdirSync(threads).reduce((sum, thread) => {
    const [status, children] = ['status', 'children'].map((file) => read(`${threads}/${thread}/${file}`)) as [string, string]
    const own = Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? 0)
    return children.split(' ').reduce((total, child) => total + (child === '' ? 0 : wakeUps(Number(child))), sum + own)
  }, 0)
}

/** Processor time of ended children, seconds (proc(5): cutime and cstime, in ticks of 10 ms). */
function endedSeconds(pid: number): number {
  const fields = read(`/proc/${pid}/stat`).split(') ')[1]?.split(' ') ?? []
  return (Number(fields[13] ?? 0) + Number(fields[14] ?? 0)) / 100
}

/** '' if the process has just ended. */
function read(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return ''
  }
}

export const rest: Figure = {
  name: 'rest',
  lab: 'shaped',
  metrics: [
    { id: 'rest-cpu', label: 'CPU at rest, with children', unit: 'ms/s', max: () => 1 },
    { id: 'rest-wake-ups', label: 'wake-ups at rest', unit: '/s', max: () => 5 },
  ],
  async measure(bed, { pid }) {
    if (pid === undefined) return {}
    // By then its work at the start is over.
    await sleep(bed.quick ? 5000 : 15_000)
    const seconds = bed.quick ? 10 : 30
    const look = () => ({ cpu: busySeconds(pid) + endedSeconds(pid), wakeUps: wakeUps(pid) })
    const before = look()
    await sleep(seconds * 1000)
    const after = look()
    return {
      'rest-cpu': (1000 * (after.cpu - before.cpu)) / seconds,
      'rest-wake-ups': (after.wakeUps - before.wakeUps) / seconds,
    }
  },
}
