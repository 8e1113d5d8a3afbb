/** How long downloads of three sizes take, from the connect call to the last byte. */
import { setTimeout as sleep } from 'node:timers/promises'
import { median } from '../../src/lab/measure.js'
import type { Figure } from './figure.js'

const sizes = [
  { id: 'get-100k', label: 'download of 100 KB', bytes: 1e5, seconds: 0.1 },
  { id: 'get-1m', label: 'download of 1 MB', bytes: 1e6, seconds: 0.35 },
  { id: 'get-10m', label: 'download of 10 MB', bytes: 1e7, seconds: 1.95 },
]

export const downloads: Figure = {
  name: 'downloads',
  lab: 'shaped',
  metrics: sizes.map(({ id, label, seconds }) => ({ id, label, unit: 's', max: () => seconds })),
  async measure(bed) {
    const values: Record<string, number> = {}
    for (const { id, bytes } of sizes) {
      const times = bytes > 1e6 ? 1 : bed.quick ? 2 : 5
      const all: number[] = []
      for (let index = 0; index < times; index++) {
        // Wait until the queues of the WANs are empty again.
        await sleep(150)
        all.push((await bed.load('down', bytes)).ms / 1000)
      }
      values[id] = median(all)
    }
    return values
  },
}
