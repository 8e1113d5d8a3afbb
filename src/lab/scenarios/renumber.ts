import { must } from '../commands.js'
import { longestPause, requireIntact, startStream, WanRecorder } from '../measure.js'
import type { Scenario } from '../scenario.js'
import { now } from '../traffic.js'

export const renumber: Scenario = {
  summary: 'a WAN gets another address and another gateway, as by DHCP, under a stream and a download',
  topology: 'hybrid',
  async run(stage) {
    const { lab } = stage
    const { gateway } = await stage.startAll('gatewayLearned')
    const recorder = new WanRecorder(lab, gateway.pid)
    const ip = (host: string, ...words: string[]) => must(lab.argv(host, ['ip', ...words]))
    // The provider's side has both networks from the beginning.
    await ip('hag', 'address', 'add', '10.1.1.1/24', 'dev', 'dsl')

    const stream = await startStream(stage, 2)
    const bulk = await startStream(stage, 0)
    await stage.sleep(2)
    stage.say('  dsl: 10.1.0.2 by 10.1.0.1 becomes 10.1.1.2 by 10.1.1.1')
    const changedAt = now()
    // With the address the kernel removes the default route.
    await ip('cpe', 'address', 'delete', '10.1.0.2/24', 'dev', 'dsl')
    await ip('cpe', 'address', 'add', '10.1.1.2/24', 'dev', 'dsl')
    await ip('cpe', 'route', 'replace', 'default', 'via', '10.1.1.1', 'dev', 'dsl', 'metric', '100')
    const renewedAt = now()
    const [again] = await Promise.all([recorder.awaitBytes('dsl', renewedAt + 50, 50_000, 10_000), stage.sleep(5)])
    const stoppedAt = now()
    const reports = [await stream.stop(), await bulk.stop()] as const
    requireIntact(stage, 'the stream', reports[0])
    requireIntact(stage, 'the download', reports[1])
    recorder.stop()

    stage.figures([
      { what: 'stream: longest gap', measured: longestPause(reports[0], changedAt, stoppedAt), unit: 'ms' },
      { what: 'download: longest gap', measured: longestPause(reports[1], changedAt, stoppedAt), unit: 'ms' },
      { what: 'download: longest gap before', measured: longestPause(reports[1], 0, changedAt), unit: 'ms' },
      {
        what: 'data of the running download over the new address',
        measured: again === undefined ? undefined : again - renewedAt,
        unit: 'ms',
        asked: 1000,
      },
    ])
    if (stage.misses.length === 0) stage.say('  no byte lost, no connection closed')
  },
}
