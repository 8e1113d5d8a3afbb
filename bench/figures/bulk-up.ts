/** A long upload: its steady goodput, measured where it arrives. */
import { ceiling, type Figure } from './figure.js'

const settleMs = 2000

export const bulkUp: Figure = {
  name: 'bulk-up',
  lab: 'shaped',
  metrics: [{ id: 'goodput-up', label: 'steady goodput of both WANs, up', unit: '%', atLeast: () => 98 }],
  async measure(bed) {
    const untilMs = settleMs + (bed.quick ? 3000 : 8000)
    const { windowBytes } = await bed.load('up-for', settleMs, untilMs)
    return { 'goodput-up': (100 * windowBytes * 8) / 1000 / (untilMs - settleMs) / ceiling(bed, 'rateUp') }
  },
}
