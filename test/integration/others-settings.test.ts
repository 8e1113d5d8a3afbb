/** What somebody else has set on the gateway's machine: it gives way while `run` runs, and is there again afterwards. */
import { existsSync } from 'node:fs'
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const wans = (lte: object) => [
  { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' },
  { name: 'lte', interface: 'lte', gateway: '10.2.0.1', ...lte },
]

t.test("somebody else's endpoint, path manager and window settings", { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.create(t)
  const cpe = world.execute('cpe')
  const manager = existsSync('/proc/sys/net/mptcp/path_manager') ? 'path_manager=userspace' : 'pm_type=1'
  await cpe('ip', 'mptcp', 'endpoint', 'add', '10.2.0.2', 'dev', 'lte', 'id', '3', 'subflow', 'fullmesh')
  for (const setting of [`net.mptcp.${manager}`, 'net.mptcp.stale_loss_cnt=0', 'net.ipv4.tcp_window_scaling=0'])
    await cpe('sysctl', '-qw', setting)
  const everything = () => cpe('sh', '-c', 'ip mptcp endpoint show; sysctl -a 2>/dev/null | grep -E "^net.(mptcp|ipv4.tcp_)"')
  const before = await everything()
  t.match(before, /10\.2\.0\.2 id 3 .*fullmesh/)
  await world.startHag()
  const host = world.lab.addresses.server

  /** Bytes that came over each WAN. */
  const download = async (bytes: number) => {
    const then = await world.lab.wanBytes()
    t.match(await world.client.call('download', { host, port: ports.source, bytes }), { intact: true, error: undefined })
    const now = await world.lab.wanBytes()
    const over = (wan: string) => (now[wan]?.down ?? 0) - (then[wan]?.down ?? 0)
    return { dsl: over('dsl'), lte: over('lte') }
  }
  const backup = await world.startGateway({ wans: wans({ role: 'backup' }), drain_seconds: 0 })
  await backup.waitFor(/somebody else's MPTCP endpoint 10\.2\.0\.2 joins over a WAN: it makes way for ours/)
  await backup.waitFor(/WAN lte is up/)
  const { lte } = await download(4_000_000)
  t.ok(lte < 100_000, `the backup carried ${lte} bytes`)
  t.same(await backup.end(), { code: 0, signal: null })
  t.equal(await everything(), before, 'all is as it was')

  const normal = await world.startGateway({ wans: wans({}), drain_seconds: 0 })
  await normal.waitFor(/WAN dsl is up/)
  await normal.waitFor(/WAN lte is up/)
  const both = await download(8_000_000)
  t.ok(both.dsl > 1_100_000 && both.lte > 1_100_000, `DSL carried ${both.dsl} bytes, LTE ${both.lte}`)
  normal.kill('SIGKILL')
  t.equal(await settle(everything, (now) => now === before, 10_000), before, 'also after a kill')
})
