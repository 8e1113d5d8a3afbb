import type { Scenario } from '../scenario.js'
import { heading, row } from './bond.js'
import { cutDownload, phases, requireAll } from './failover.js'

const directMegabytes = 25

export const demo: Scenario = {
  summary: 'what scripts/demo shows: DSL alone, then both WANs with a cut in the middle',
  topology: 'hybrid',
  async run(stage) {
    const { lab } = stage
    await stage.startServer()
    stage.say(`\n1. Without bondsocks: curl in the LAN, ${directMegabytes} MB over ${lab.wans[0]?.name} alone`)
    const direct = await stage.download(directMegabytes)
    stage.say('\n2. With bondsocks: the same curl over both WANs, and a cut in the middle')
    await stage.startHag()
    await stage.startGateway()
    const cut = await cutDownload(stage)
    stage.table([heading(stage), row(stage, `${lab.wans[0]?.name} alone`, direct)])
    stage.table(phases(stage, cut))
    requireAll(stage, cut)
  },
}
