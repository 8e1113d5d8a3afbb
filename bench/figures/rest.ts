/** What a redirector costs while nothing moves, as during most of the day in a home: without a client, and with idle connections. */
import { setTimeout as sleep } from 'node:timers/promises'
import { endedSeconds, wakeUps } from '../../test/support/proc.js'
import { busySeconds, type Figure } from './figure.js'

const idleConnections = 5000
/** Each opens one after the other, a round trip each. */
const holders = 10

export const rest: Figure = {
  name: 'rest',
  lab: 'shaped',
  metrics: [
    { id: 'rest-cpu', label: 'CPU at rest, with children', unit: 'ms/s', max: () => 1 },
    { id: 'rest-wake-ups', label: 'wake-ups at rest', unit: '/s', max: () => 5 },
    { id: 'rest-idle-cpu', label: `CPU with ${idleConnections} idle connections`, unit: 'ms/s', max: () => 3 },
    { id: 'rest-idle-wake-ups', label: `wake-ups with ${idleConnections} idle connections`, unit: '/s' },
  ],
  async measure(bed, { pid, descriptorsEach = 2 }) {
    if (pid === undefined) return {}
    const seconds = bed.quick ? 10 : 60
    /** At the beginning it still has work, or looks often whether there is some. */
    const settledMs = bed.quick ? 15_000 : 60_000
    const look = () => ({ cpu: busySeconds(pid) + endedSeconds(pid), wakeUps: wakeUps(pid) })
    const spent = async () => {
      await sleep(settledMs)
      const before = look()
      await sleep(seconds * 1000)
      const after = look()
      return { cpu: (1000 * (after.cpu - before.cpu)) / seconds, wakeUps: (after.wakeUps - before.wakeUps) / seconds }
    }
    const alone = await spent()
    const found = { 'rest-cpu': alone.cpu, 'rest-wake-ups': alone.wakeUps }
    // Some candidates need more descriptors than the limit allows; and keepalive is set, a call for each, only after half a minute.
    if (descriptorsEach > 2 || bed.quick) return found
    const all = Array.from({ length: holders }, () => bed.startClient('hold', idleConnections / holders))
    try {
      await Promise.all(all.map((holder) => holder.waitFor(/^held$/m, 120_000)))
      const idle = await spent()
      return { ...found, 'rest-idle-cpu': idle.cpu, 'rest-idle-wake-ups': idle.wakeUps }
    } finally {
      await Promise.all(all.map((holder) => holder.end('SIGKILL')))
    }
  },
}
