import type { Scenario } from '../scenario.js'
import { loseHag, requireHag, returnsToFirst } from './lose-hag.js'

export const hagFailover: Scenario = {
  summary: 'the first of two HAGs is killed: new connections go by the second, and later by the first again',
  topology: 'hybrid',
  async run(stage) {
    await stage.startHag('hag2')
    const { hag } = await stage.startAll('gatewayTwoHags')
    await requireHag(stage, 'hag')
    const figures = await loseHag(stage, async () => {
      stage.say('  the first HAG is killed')
      hag.signal('SIGKILL')
      await hag.exited
    })
    await requireHag(stage, 'hag2')
    await stage.startHag()
    const back = await returnsToFirst(stage, 25_000)
    stage.figures([
      ...figures,
      { what: 'first HAG started again: used by new connections', measured: back, unit: 'ms', asked: 15_000 },
    ])
  },
}
