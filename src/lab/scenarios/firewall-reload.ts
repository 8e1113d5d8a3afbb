import { must } from '../commands.js'
import { longestPause, requireIntact, startDialling, startStream } from '../measure.js'
import type { Scenario } from '../scenario.js'
import { now } from '../traffic.js'

/** The firewall rules of another program. */
const theirs = `*nat
-A PREROUTING -p tcp --dport 2222 -j ACCEPT
-A POSTROUTING -o dsl -j MASQUERADE
-A POSTROUTING -o lte -j MASQUERADE
COMMIT
`
/** Twice what is asked, because the machine may be busy. */
const watchMs = 20_000

export const firewallReload: Scenario = {
  summary: 'another program reloads the firewall, and with it our chain is gone, under a stream and new connections',
  topology: 'hybrid',
  async run(stage) {
    const { lab } = stage
    await stage.startAll()
    const stream = await startStream(stage, 2)
    const dialling = await startDialling(stage, 10_000, 100)
    await stage.sleep(2)
    const reloadedAt = now()
    await must(lab.argv('cpe', ['iptables-restore']), theirs)
    stage.say('  iptables-restore has put other rules into the nat table')
    let redirectedAt: number | undefined
    let rules = ''
    while (redirectedAt === undefined && now() - reloadedAt < watchMs) {
      await stage.sleep(0.05)
      rules = await must(lab.argv('cpe', ['iptables', '-t', 'nat', '-S']))
      if (rules.includes('-j BONDSOCKS')) redirectedAt = now()
    }
    await stage.sleep(1)
    const stoppedAt = now()
    const report = await stream.stop()
    const failed = (await dialling.stop()).filter(({ error }) => error !== undefined)
    requireIntact(stage, 'the stream', report)
    stage.figures([
      { what: 'stream: longest gap', measured: longestPause(report, reloadedAt, stoppedAt), unit: 'ms', asked: 150 },
      {
        what: 'the redirection is back',
        measured: redirectedAt === undefined ? undefined : redirectedAt - reloadedAt,
        unit: 'ms',
        asked: 10_000,
      },
      { what: 'new connections: failed', measured: failed.length, unit: '', asked: 0 },
    ])
    if (!rules.includes('--dport 2222 -j ACCEPT')) stage.miss("the other program's rule is gone")
  },
}
