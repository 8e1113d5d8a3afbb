/** A long download: its steady goodput, what waits between server and client meanwhile, and then the first byte of others beside it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Bed, loadPort } from '../bed.js'
import { ceiling, type Figure, median } from './figure.js'
import { firstByteMs } from './first-byte.js'

/** Slow start and the joining of the second WAN are over by then. */
const settleMs = 4000
const quickSettleMs = 2000
/** A connection beside it takes less. */
const besideMs = 600

export const bulkDown: Figure = {
  name: 'bulk-down',
  lab: 'shaped',
  metrics: [
    { id: 'goodput-down', label: 'steady goodput of both WANs, down', unit: '%', atLeast: () => 98 },
    { id: 'parked', label: 'bytes parked during a download', unit: 'MB', atMost: () => 2 },
    { id: 'first-byte-beside', label: 'first byte beside a download', unit: 'ms', atMost: () => 80 },
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
      samples.push(await parkedBytes(bed))
    }
    await sleep(startedAt + untilMs - performance.now())
    // Not earlier: they would take from its goodput.
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

/** What the server's kernel was told to have arrived and has not yet reached the client: in the proxies, and on the WANs between them. */
async function parkedBytes({ world }: Bed): Promise<number> {
  const read = async (host: string, filter: string, key: string) => {
    const text = await world.execute(host)('ss', '-tinH', 'state', 'established', filter)
    return Math.max(0, ...[...text.matchAll(new RegExp(`\\b${key}:(\\d+)`, 'g'))].map(([, bytes]) => Number(bytes)))
  }
  const [acknowledged, received] = await Promise.all([
    read('server', `sport = :${loadPort}`, 'bytes_acked'),
    read('lan', `dport = :${loadPort}`, 'bytes_received'),
  ])
  return Math.max(0, acknowledged - received)
}
