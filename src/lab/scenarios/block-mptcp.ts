import { median, requireMptcp, startDialling } from '../measure.js'
import { putMiddlebox, takeMiddlebox } from '../middlebox.js'
import type { Scenario } from '../scenario.js'
import { now } from '../traffic.js'
import { besideUsual, usualWithout } from './cut.js'

const wan = 'dsl'
const bytes = 10_000

export const blockMptcp: Scenario = {
  summary: "something on a WAN's path loses the SYNs of MPTCP, and later does not: new connections do not wait for it",
  topology: 'hybrid',
  async run(stage) {
    const { lab } = stage
    const { gateway } = await stage.startAll()
    const usual = await usualWithout(stage, gateway, wan, bytes, 100)

    const dialling = await startDialling(stage, bytes, 100)
    const blockedAt = now()
    await putMiddlebox(lab, 'block-mptcp', wan)
    await stage.sleep(6)
    const all = (await dialling.stop()).filter(({ at }) => at > blockedAt)
    const said = await gateway.awaitLog(new RegExp(`WAN ${wan} (carries no MPTCP|is down)`), blockedAt)
    // It begins on the other WAN, because joins are not blocked.
    await requireMptcp(stage, 'a stream meanwhile', ['dsl', 'lte'])

    const healedAt = now()
    await takeMiddlebox(lab)
    const healed = await gateway.awaitLog(new RegExp(`WAN ${wan} (carries MPTCP again|is up)`), healedAt, 20_000)
    await requireMptcp(stage, 'a stream afterwards', ['dsl', 'lte'])

    const late = all.filter(({ at }) => at > blockedAt + 3000).map(({ ms }) => ms)
    stage.say(`  new connections: over lte alone usually ${median(usual).toFixed(0)} ms; ${all.length} made`)
    stage.figures([
      { what: 'said', measured: said && said.at - blockedAt, unit: 'ms', asked: 5000 },
      { what: 'new connections: failed', measured: all.filter(({ error }) => error !== undefined).length, unit: '', asked: 0 },
      { what: 'new connections: slowest', measured: Math.max(...all.map(({ ms }) => ms)), unit: 'ms', asked: 1500 },
      ...besideUsual('new connections after 3 s', late, usual),
      { what: 'no longer blocked: said', measured: healed && healed.at - healedAt, unit: 'ms', asked: 10_000 },
    ])
  },
}
