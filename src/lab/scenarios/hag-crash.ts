import type { Scenario } from '../scenario.js'
import { loseHag, requireHag, returnsToFirst } from './lose-hag.js'

export const hagCrash: Scenario = {
  summary: 'the only HAG is killed: connections go direct, and by the HAG again once it is back',
  topology: 'hybrid',
  async run(stage) {
    const { hag } = await stage.startAll()
    await requireHag(stage, 'hag')
    const figures = await loseHag(stage, async () => {
      stage.say('  the HAG is killed')
      hag.signal('SIGKILL')
      await hag.exited
    })
    await requireHag(stage, undefined)
    await stage.startHag()
    const back = await returnsToFirst(stage, 15_000)
    stage.figures([...figures, { what: 'HAG started again: used by new connections', measured: back, unit: 'ms', asked: 10_000 }])
  },
}
