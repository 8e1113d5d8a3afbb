import { putMiddlebox, takeMiddlebox } from '../middlebox.js'
import type { Scenario } from '../scenario.js'
import { loseHag, requireHag, returnsToFirst } from './lose-hag.js'

export const hagBlackHole: Scenario = {
  summary: 'the first of two HAGs falls silent: new connections go by the second, and later by the first again',
  topology: 'hybrid',
  async run(stage) {
    const { lab } = stage
    await stage.startHag('hag2')
    await stage.startAll('gatewayTwoHags')
    await requireHag(stage, 'hag')
    const figures = await loseHag(stage, async () => {
      stage.say('  the first HAG falls silent')
      await putMiddlebox(lab, 'silence', lab.addresses.hag)
    })
    await requireHag(stage, 'hag2')
    await takeMiddlebox(lab)
    const back = await returnsToFirst(stage, 25_000)
    stage.figures([
      ...figures,
      { what: 'first HAG answers again: used by new connections', measured: back, unit: 'ms', asked: 15_000 },
    ])
  },
}
