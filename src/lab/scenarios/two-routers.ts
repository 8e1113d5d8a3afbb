import { BondsocksError } from '../../base/errors.js'
import { must } from '../commands.js'
import type { Scenario } from '../scenario.js'

/** What a published test of this topology reached with iperf3, Mbit/s of 15. */
const published = 13.4
const sum = 15
const seconds = 20
const secondServerAddress = '192.168.1.2'

export const twoRouters: Scenario = {
  summary: 'plain MPTCP through two routers, by iperf3, beside a published 13.4 of 15 Mbit/s',
  topology: 'two-routers',
  async run(stage) {
    const { lab } = stage
    // The server announces its second address, and the client's route to it goes over the other router, so no rules are needed.
    await must(lab.argv('client', ['ip', 'mptcp', 'limits', 'set', 'subflows', '2', 'add_addr_accepted', '2']))
    await must(lab.argv('server', ['ip', 'mptcp', 'limits', 'set', 'subflows', '2']))
    await must(lab.argv('server', ['ip', 'mptcp', 'endpoint', 'add', secondServerAddress, 'signal']))
    await stage.start('iperf3', 'server', ['mptcpize', 'run', 'iperf3', '--server', '--forceflush'], 'Server listening')

    const rates: number[][] = []
    for (const [title, tool] of [
      ['TCP', ['iperf3']],
      ['MPTCP', ['mptcpize', 'run', 'iperf3']],
    ] as const) {
      stage.say(`${title}: ${seconds} s`)
      const before = await lab.wanBytes()
      const argv = [...tool, '--client', lab.addresses.server, '--time', String(seconds), '--json']
      const report = JSON.parse(await must(lab.argv('client', argv)))
      const after = await lab.wanBytes()
      const line = (wan: string) => ((after[wan]?.up ?? 0) - (before[wan]?.up ?? 0)) / (seconds * 125_000)
      rates.push([report.end.sum_received.bits_per_second / 1e6, ...lab.wans.map(({ name }) => line(name))])
    }
    const row = (title: string, [payload = 0, ...lines]: number[]) => [
      ...[title, payload.toFixed(1), `${((payload / sum) * 100).toFixed(1)} %`],
      ...lines.map((rate) => rate.toFixed(1)),
    ]
    const [tcp = [], mptcp = []] = rates
    stage.table([
      ['Mbit/s', 'payload', `of ${sum}`, ...lab.wans.map(({ name, rateUp }) => `${name} (of ${rateUp})`)],
      row('TCP, one path', tcp),
      row('MPTCP, both', mptcp),
      [...row('published', [published]), ...lab.wans.map(() => '-')],
    ])
    if ((mptcp[0] ?? 0) > (tcp[0] ?? 0) * 1.2) return
    throw new BondsocksError('LAB_NOT_BONDED', 'MPTCP was no faster than TCP: only one path was used')
  },
}
