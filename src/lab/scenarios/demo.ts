import type { Scenario } from '../scenario.js'
import { settledSeconds } from './bond.js'
import { cutDownload, heading, phases, rates, requireSurvival, verdict } from './failover.js'

const directMegabytes = 25

export const demo: Scenario = {
  summary: 'what scripts/demo shows: DSL alone, then both WANs with a cut in the middle',
  topology: 'hybrid',
  async run(stage) {
    await stage.startServer()
    stage.say(`\nWithout bondsocks, curl in the LAN gets ${directMegabytes} MB over DSL alone:`)
    const direct = await stage.download(directMegabytes)
    stage.say('\nNow with bondsocks, over DSL and LTE:')
    await stage.startHag()
    await stage.startGateway()
    const cut = await cutDownload(stage)
    stage.table([heading(stage), rates(stage, 'DSL alone', direct, settledSeconds), ...phases(stage, cut)])
    stage.say(`  ${verdict(stage, cut)}`)
    requireSurvival(stage, cut)
  },
}
