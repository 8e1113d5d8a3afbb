/** CPU time of redirector and HAG for a GB in one direction, and the rate on this machine. */
import { type Figure, measureCpu, minOf, times } from './figure.js'

export const cpuPerGb = (direction: 'down' | 'up'): Figure => ({
  name: `cpu-${direction}`,
  lab: 'unshaped',
  metrics: [
    {
      id: `cpu-${direction}`,
      label: `CPU per GB, ${direction}`,
      unit: 's',
      max: ({ yardstick, redsocks }) => minOf(times(1.05, yardstick), redsocks),
    },
    { id: `hag-cpu-${direction}`, label: `HAG's CPU per GB, ${direction}`, unit: 's' },
    { id: `rate-${direction}`, label: `unshaped, ${direction}`, unit: 'Gbit/s' },
  ],
  async measure(bed, running) {
    const bytes = bed.quick ? 0.2e9 : 1e9
    const { ms, cpu } = await measureCpu(bed, running, direction, 1e9 / bytes, () => bed.load(direction, bytes))
    return { [`rate-${direction}`]: (bytes * 8) / 1e6 / ms, ...cpu }
  },
})
