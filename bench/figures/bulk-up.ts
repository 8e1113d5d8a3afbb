/** A long upload: its steady goodput, measured where it arrives. */
import { ceiling, type Figure } from './figure.js'

const settleMs = 4000
const quickSettleMs = 2000

export const bulkUp: Figure = {
  name: 'bulk-up',
  lab: 'shaped',
  metrics: [{ id: 'goodput-up', label: 'steady goodput of both WANs, up', unit: '%', min: () => 98 }],
  async measure(bed) {
    const fromMs = bed.quick ? quickSettleMs : settleMs
    const untilMs = fromMs + (bed.quick ? 3000 : 10_000)
    const { windowBytes } = await bed.load('up-for', fromMs, untilMs)
    return { 'goodput-up': (100 * windowBytes * 8) / 1000 / (untilMs - fromMs) / ceiling(bed, 'rateUp') }
  },
}
