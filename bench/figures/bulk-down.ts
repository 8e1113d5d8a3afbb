/**
 * A long download: its steady goodput, the bytes that wait between server and client meanwhile, and the time to the first byte for other
 * connections during the download.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { median } from '../../src/lab/measure.js'
import { loadPort } from '../bed.js'
import { ceiling, type Figure } from './figure.js'
import { firstByteMs } from './first-byte.js'

/** By then slow start is over, and the second WAN has joined. */
const settleMs = 4000
const quickSettleMs = 2000
/** Longer than another connection takes during the download. */
const besideMs = 600

export const bulkDown: Figure = {
  name: 'bulk-down',
  lab: 'shaped',
  metrics: [
    { id: 'goodput-down', label: 'steady goodput of both WANs, down', unit: '%', min: () => 98 },
    { id: 'parked', label: 'bytes parked during a download', unit: 'MB', max: () => 2 },
    { id: 'first-byte-beside', label: 'first byte beside a download', unit: 'ms', max: () => 80 },
  ],
  async measure(bed) {
    const fromMs = bed.quick ? quickSettleMs : settleMs
    const untilMs = fromMs + (bed.quick ? 3000 : 10_000)
    const times = bed.quick ? 4 : 9
    const startedAt = performance.now()
    const bulk = bed.startClient('down-for', fromMs, untilMs, untilMs + times * besideMs)
    const samples: number[] = []
    await sleep(fromMs)
    for (let index = 0; index < 8; index++) {
      await sleep((untilMs - fromMs) / 10)
      samples.push(await bed.world.parkedBytes(loadPort))
    }
    await sleep(startedAt + untilMs - performance.now())
    // Only now, because these connections reduce the goodput.
    const firstMs = await firstByteMs(bed, times)
    if (!bulk.running) throw new Error('the download ended before what was measured beside it')
    const { windowBytes } = await bed.outcome(bulk, 'download')
    const mbit = (windowBytes * 8) / 1000 / (untilMs - fromMs)
    return {
      'goodput-down': (100 * mbit) / ceiling(bed, 'rateDown'),
      parked: median(samples) / 1e6,
      'first-byte-beside': firstMs,
    }
  },
}
