/** Connections of one request and one answer of 100 bytes: CPU time of the redirector for each, and how many a second. */
import { busySeconds, type Figure, least, times } from './figure.js'

const atOnce = 16

export const shortConnections: Figure = {
  name: 'short-connections',
  lab: 'unshaped',
  metrics: [
    {
      id: 'cpu-short',
      label: 'CPU per short connection',
      unit: 'us',
      atMost: ({ yardstick, redsocks }) => least(times(1.15, yardstick), redsocks),
    },
    { id: 'short-rate', label: 'short connections', unit: '1/s' },
  ],
  async measure(bed, { pid }) {
    const count = bed.quick ? 1500 : 8000
    // The first ones load code and fill pools.
    await bed.load('short', 200, atOnce)
    const before = pid === undefined ? 0 : busySeconds(pid)
    const { ms } = await bed.load('short', count, atOnce)
    const rate = { 'short-rate': (count * 1000) / ms }
    return pid === undefined ? rate : { ...rate, 'cpu-short': ((busySeconds(pid) - before) * 1e6) / count }
  },
}
