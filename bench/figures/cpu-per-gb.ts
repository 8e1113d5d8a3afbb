/** CPU time that the redirector spends on a GB in either direction, and how fast it goes on this machine. */
import { busySeconds, type Figure, least, times } from './figure.js'

const directions = ['down', 'up'] as const

export const cpuPerGb: Figure = {
  name: 'cpu-per-gb',
  lab: 'unshaped',
  metrics: directions.flatMap((direction) => [
    {
      id: `cpu-${direction}`,
      label: `CPU per GB, ${direction}`,
      unit: 's',
      atMost: ({ yardstick, redsocks }) => least(times(1.05, yardstick), redsocks),
    },
    { id: `rate-${direction}`, label: `unshaped, ${direction}`, unit: 'Gbit/s' },
  ]),
  async measure(bed, { pid }) {
    const bytes = bed.quick ? 0.2e9 : 1e9
    const values: Record<string, number> = {}
    for (const direction of directions) {
      const before = pid === undefined ? 0 : busySeconds(pid)
      const { ms } = await bed.load(direction, bytes)
      values[`rate-${direction}`] = (bytes * 8) / 1e6 / ms
      if (pid !== undefined) values[`cpu-${direction}`] = ((busySeconds(pid) - before) * 1e9) / bytes
    }
    return values
  },
}
