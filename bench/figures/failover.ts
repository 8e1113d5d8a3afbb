/** A stream of 2 Mbit/s loses the WAN that carries it: the longest time without a byte at the LAN client. */
import { setTimeout as sleep } from 'node:timers/promises'
import { longestPause, startStream, WanRecorder } from '../../src/lab/measure.js'
import { nodeArgv } from '../../src/lab/node.js'
import { Stage } from '../../src/lab/scenario.js'
import { hows } from '../../src/lab/scenarios/cut.js'
import { now, trafficPort } from '../../src/lab/traffic.js'
import type { Figure } from './figure.js'

export const failover: Figure = {
  name: 'failover',
  lab: 'shaped',
  metrics: [
    { id: 'gap-link-down', label: 'stream: gap at link down', unit: 'ms', max: () => 150 },
    { id: 'gap-black-hole', label: 'stream: gap at a silent cut', unit: 'ms', max: () => 500 },
  ],
  async measure({ world, quick }, { pid }) {
    // Without a proxy a stream dies with its WAN.
    if (pid === undefined) return {}
    const stage = new Stage(world.lab, new AbortController().signal, { print: () => {} })
    const values: Record<string, number> = {}
    try {
      await stage.start(
        'the traffic server',
        'server',
        [...nodeArgv('lab/programs/traffic'), 'serve', String(trafficPort)],
        'serving',
      )
      for (const how of quick ? (['black-hole'] as const) : (['black-hole', 'link-down'] as const)) {
        const recorder = new WanRecorder(world.lab, pid)
        const startedAt = now()
        const stream = await startStream(stage, 2)
        await sleep(1000)
        const brought = (wan: string) => recorder.between(wan, startedAt, now())
        const [wan = ''] = world.lab.wans.map(({ name }) => name).sort((one, other) => brought(other) - brought(one))
        recorder.stop()
        const cutAt = now()
        await hows[how](stage, wan, true)
        try {
          await sleep(2000)
          const report = await stream.stop()
          if (!report.intact || report.ending !== 'stopped') throw new Error(`the stream broke: ${JSON.stringify(report)}`)
          values[`gap-${how}`] = longestPause(report, cutAt, Number.POSITIVE_INFINITY)
        } finally {
          await hows[how](stage, wan, false)
        }
        // Wait until the WAN is in use again.
        if (!quick) await sleep(2500)
      }
      return values
    } finally {
      await stage.close()
    }
  },
}
