/** What /proc tells about a process. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Open descriptors; only those of `kind`, if given. */
export function countDescriptors(pid: number, kind?: 'socket' | 'pipe'): number {
  const folder = `/proc/${pid}/fd`
  const all = readdirSync(folder)
  return kind === undefined ? all.length : all.filter((fd) => target(`${folder}/${fd}`).startsWith(`${kind}:`)).length
}

function target(link: string): string {
  try {
    return readlinkSync(link)
  } catch {
    return 'closed meanwhile'
  }
}

/** Memory that is the process's alone, bytes: Private_Clean + Private_Dirty of smaps_rollup. */
export const privateMemory = (pid: number): number => memory(pid, 'Private_Clean') + memory(pid, 'Private_Dirty')

/** Memory that the process has in RAM, bytes, with what it shares with others. */
export const residentMemory = (pid: number): number => memory(pid, 'Rss')

function memory(pid: number, key: string): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  return Number(rollup.match(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm'))?.[1]) * 1024
}

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

/** User and system time of all its threads since it started, seconds; resolution is one clock tick (10 ms). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field is the name in parentheses, which may hold blanks; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** User and system time of the main thread and of all ended child processes, seconds: all work except relaying. */
export function controlSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/task/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / ticksPerSecond
}

/** Processor time of all threads but the main one, seconds; with a resolution of nanoseconds, unlike the others. */
export function workerSeconds(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`).filter((thread) => Number(thread) !== pid)
  const spent = (thread: string) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0])
  return threads.reduce((sum, thread) => sum + spent(thread), 0) / 1e9
}

/** How often its threads and those of its children slept and were woken (voluntary context switches). */
export function wakeUps(pid: number): number {
  const threads = `/proc/${pid}/task`
  if (!existsSync(threads)) return 0
  return readdirSync(threads).reduce((sum, thread) => {
    const [status, children] = ['status', 'children'].map((file) => read(`${threads}/${thread}/${file}`)) as [string, string]
    const own = Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? 0)
    return children.split(' ').reduce((total, child) => total + (child === '' ? 0 : wakeUps(Number(child))), sum + own)
  }, 0)
}

/** '' if the process has just ended. */
function read(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return ''
  }
}

/** Processor time of ended children, seconds; resolution is one clock tick (10 ms). */
export function endedSeconds(pid: number): number {
  const fields = read(`/proc/${pid}/stat`).split(') ')[1]?.split(' ') ?? []
  return (Number(fields[13] ?? 0) + Number(fields[14] ?? 0)) / ticksPerSecond
}
