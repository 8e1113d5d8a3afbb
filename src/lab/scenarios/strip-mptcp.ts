import { longestPause, requireIntact, requireMptcp, startStream } from '../measure.js'
import { putMiddlebox, takeMiddlebox } from '../middlebox.js'
import type { Scenario } from '../scenario.js'
import { now } from '../traffic.js'

const wan = 'dsl'

export const stripMptcp: Scenario = {
  summary: "something on a WAN's path takes the MPTCP option away, and later does not: said, avoided, bonded again",
  topology: 'hybrid',
  async run(stage) {
    const { gateway } = await stage.startAll()
    const all = stage.lab.wans.map(({ name }) => name)
    await requireMptcp(stage, 'a stream before', all)
    const running = await startStream(stage, 2)
    await stage.sleep(1)
    const strippedAt = now()
    await putMiddlebox(stage.lab, 'strip-mptcp', wan)
    stage.say(`  ${wan} strips MPTCP now`)
    // A connection that begins over this WAN becomes plain TCP: by that the gateway notices.
    requireIntact(stage, 'a stream over it', await (await startStream(stage, 1)).stop())
    const noticed = await gateway.awaitLog(new RegExp(`WAN ${wan} carries no MPTCP`), strippedAt)
    const report = await running.stop()
    requireIntact(stage, 'the running stream', report)
    await requireMptcp(
      stage,
      'a new stream',
      all.filter((one) => one !== wan),
    )

    const healedAt = now()
    await takeMiddlebox(stage.lab)
    const healed = await gateway.awaitLog(new RegExp(`WAN ${wan} carries MPTCP again`), healedAt, 20_000)
    await requireMptcp(stage, 'a stream afterwards', all)
    stage.figures([
      { what: 'running stream: longest gap', measured: longestPause(report, strippedAt, healedAt), unit: 'ms' },
      { what: 'said', measured: noticed && noticed.at - strippedAt, unit: 'ms', asked: 5000 },
      { what: 'no longer stripped: said', measured: healed && healed.at - healedAt, unit: 'ms', asked: 10_000 },
    ])
  },
}
