/** Connections with one request and an answer of 100 bytes: CPU time of redirector and HAG for each, and their number per second. */
import { type Figure, measureCpu, minOf, times } from './figure.js'

const atOnce = 16

export const shortConnections: Figure = {
  name: 'short-connections',
  lab: 'unshaped',
  metrics: [
    {
      id: 'cpu-short',
      label: 'CPU per short connection',
      unit: 'us',
      max: ({ yardstick, redsocks }) => minOf(times(1.15, yardstick), redsocks),
    },
    { id: 'hag-cpu-short', label: "HAG's CPU per short connection", unit: 'us' },
    { id: 'short-rate', label: 'short connections', unit: '1/s' },
  ],
  async measure(bed, running) {
    const count = bed.quick ? 1500 : 8000
    // The first connections load code and fill pools, so they are not measured.
    await bed.load('short', 200, atOnce)
    const { ms, cpu } = await measureCpu(bed, running, 'short', 1e6 / count, () => bed.load('short', count, atOnce))
    return { 'short-rate': (count * 1000) / ms, ...cpu }
  },
}
