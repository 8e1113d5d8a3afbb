import { must } from '../commands.js'
import type { Lab } from '../lab.js'
import { cpuMs, longestPause, requireIntact, startStream } from '../measure.js'
import type { Scenario } from '../scenario.js'
import { now } from '../traffic.js'

const flaps = 15
/** A hundred in a minute. */
const periodSeconds = 0.6

/** Pulls the plug and plugs it in again, so many times. */
export async function flap(lab: Lab, wan: string, times: number, sleep: (seconds: number) => Promise<unknown>): Promise<void> {
  const startedAt = now()
  for (let half = 0; half < 2 * times; half++) {
    await sleep(Math.max(0, startedAt / 1000 + (half * periodSeconds) / 2 - now() / 1000))
    await lab.carrier(wan, half % 2 === 1)
  }
}

export const flapping: Scenario = {
  summary: 'the plug of a WAN is pulled and put in again and again, under a stream',
  topology: 'hybrid',
  async run(stage) {
    const { lab } = stage
    const { gateway } = await stage.startAll()
    const endpoints = async () => (await must(lab.argv('cpe', ['ip', 'mptcp', 'endpoint', 'show']))).trim().split('\n').sort()
    const rules = () => must(lab.argv('cpe', ['ip', 'rule', 'show']))
    const before = { endpoints: (await endpoints()).length, rules: await rules() }
    const stream = await startStream(stage, 2)
    const startedAt = now()
    const cpuBefore = cpuMs(gateway.pid)
    stage.say(`  ${flaps} flaps of dsl in ${flaps * periodSeconds} s`)
    await flap(lab, 'dsl', flaps, (seconds) => stage.sleep(seconds))
    const cpu = ((cpuMs(gateway.pid) - cpuBefore) / (now() - startedAt)) * 100
    const endedAt = now()
    let settledAt: number | undefined
    while (settledAt === undefined && now() - endedAt < 5000) {
      if ((await endpoints()).length === before.endpoints && (await rules()) === before.rules) settledAt = now()
      else await stage.sleep(0.05)
    }
    const report = await stream.stop()
    requireIntact(stage, 'the stream', report)
    stage.figures([
      { what: "the gateway's processor time, of one core", measured: cpu, unit: '%', asked: 20 },
      { what: 'stream: longest gap', measured: longestPause(report, startedAt, endedAt), unit: 'ms' },
      {
        what: 'rules and endpoints as before after',
        measured: settledAt === undefined ? undefined : settledAt - endedAt,
        unit: 'ms',
        asked: 2000,
      },
    ])
  },
}
