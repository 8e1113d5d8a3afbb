import type { Scenario } from '../scenario.js'
import { cutStream } from './cut.js'

export const linkDown: Scenario = {
  summary: 'the WAN that carries a stream, then a download, is unplugged and plugged in again',
  topology: 'hybrid',
  async run(stage) {
    const { gateway } = await stage.startAll()
    const stream = await cutStream(stage, gateway, 'link-down', 2)
    await stage.requireUp(gateway, stream.wan)
    const bulk = await cutStream(stage, gateway, 'link-down', 0)
    stage.figures([
      { what: 'stream: longest gap', measured: stream.gap, unit: 'ms', asked: 150, redsocks: '714' },
      { what: 'stream: longest gap at the return', measured: stream.gapBack, unit: 'ms', asked: 150 },
      { what: 'download: longest gap', measured: bulk.gap, unit: 'ms', asked: 150 },
      { what: 'download: longest gap before', measured: bulk.before, unit: 'ms' },
      { what: 'download: longest gap at the return', measured: bulk.gapBack, unit: 'ms' },
      { what: 'plugged in: data of the running download again', measured: bulk.resumed, unit: 'ms', asked: 1000 },
    ])
  },
}
