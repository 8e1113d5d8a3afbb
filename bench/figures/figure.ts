import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { Bed, Transfer } from '../bed.js'
import type { Running } from '../candidates.js'

/** Medians by candidate. */
export type Medians = Readonly<Record<string, number | undefined>>

export interface Metric {
  id: string
  label: string
  unit: string
  /** The bound that bondsocks must keep; a relative one is computed from the medians of the same run. Undefined: there is no bound. */
  max?(others: Medians): number | undefined
  min?(others: Medians): number | undefined
}

export interface Figure {
  name: string
  /** The lab: WANs as fast as the machine is, or the shaped ones of the topology `hybrid`. */
  lab: 'unshaped' | 'shaped'
  metrics: Metric[]
  /** Values by metric id, without those that do not apply to the candidate. Throws if a byte was wrong or missing. */
  measure(bed: Bed, running: Running): Promise<Record<string, number>>
}

/** Processor time of the process's present threads and of its children's, seconds, with a resolution of nanoseconds. */
export function busySeconds(pid: number): number {
  const threads = `/proc/${pid}/task`
  const read = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8').trim().split(' ') : [])
  const all = existsSync(threads) ? readdirSync(threads) : []
  return all.reduce((sum, thread) => {
    const children = read(`${threads}/${thread}/children`).filter((child) => child !== '')
    const [nanoseconds = 0] = read(`${threads}/${thread}/schedstat`)
    return children.reduce((total, child) => total + busySeconds(Number(child)), sum + Number(nanoseconds) / 1e9)
  }, 0)
}

/** The CPU time of redirector and HAG while a load runs, times a factor, as `cpu-ID` and `hag-cpu-ID`. Empty without a redirector. */
export async function measureCpu(bed: Bed, running: Running, id: string, factor: number, load: () => Promise<Transfer>) {
  const { pid, hagPid = bed.hag.pid } = running
  if (pid === undefined) return { ms: (await load()).ms, cpu: {} }
  const before = [busySeconds(pid), busySeconds(hagPid)] as const
  const { ms } = await load()
  const spent = (after: number, index: 0 | 1) => factor * (after - before[index])
  return { ms, cpu: { [`cpu-${id}`]: spent(busySeconds(pid), 0), [`hag-cpu-${id}`]: spent(busySeconds(hagPid), 1) } }
}

/** The payload's share of a line rate with MPTCP's options: 1428 of 1514 bytes. */
const payloadShare = 0.943

/** Mbit/s of payload that all WANs together can carry. */
export const ceiling = ({ world }: Bed, direction: 'rateDown' | 'rateUp') =>
  payloadShare * world.lab.wans.reduce((sum, wan) => sum + wan[direction], 0)

export const minOf = (...values: (number | undefined)[]) => {
  const known = values.filter((value) => value !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

export const times = (factor: number, value: number | undefined) => (value === undefined ? undefined : factor * value)
