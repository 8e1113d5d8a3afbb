/** `bondsocks status`, as people and programs ask for it: from nothing, over a bonded download and a cut, to a killed gateway. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type GatewayStatus, gatewayStatus, type HagStatus, hagStatus } from '../../src/control/status.js'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { type Outcome, outcome } from '../support/outcome.js'
import { bondsocks, start } from '../support/process.js'

t.test('status', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.create(t, { gateway: { drain_seconds: 0 } })
  const { lab, client } = world
  const status = (host: string, ...words: string[]): Promise<Outcome> => outcome(lab.argv(host, bondsocks('status', ...words)))
  const ofGateway = async () => gatewayStatus.parse(JSON.parse((await status('cpe', '--json')).stdout)) as GatewayStatus
  const ofHag = async () => hagStatus.parse(JSON.parse((await status('hag', '--json')).stdout)) as HagStatus

  t.match(await status('cpe'), { code: 3, stdout: 'nothing of bondsocks runs in this network namespace\n', stderr: '' })
  t.match(await status('cpe', '-c', world.config('gateway')), {
    code: 3,
    stdout: /runs in .*\n\n`bondsocks plan` of (?:.|\n)*ip rule add/,
  })
  t.match(await status('cpe', '--json'), { code: 3, stdout: '' })

  // Another user who may read the config, which is root's.
  const may = ['--inh-caps=+dac_override', '--ambient-caps=+dac_override']
  const stranger = ['setpriv', '--reuid=65534', '--clear-groups', ...may]
  const other = start(t, lab.argv('hag2', [...stranger, ...bondsocks('hag', '-c', world.config('hag2'))]))
  await other.waitFor(/there is no control socket .*: it needs root, or \/run\/bondsocks as a folder of this user"/)

  await world.startHag()
  const gateway = await world.startGateway()
  for (const name of ['dsl', 'lte']) await gateway.waitFor(new RegExp(`WAN ${name} is up`))
  t.match(await status('cpe'), {
    code: 0,
    stdout: /\nready to bond dsl and lte; no connection is old enough to prove it\n/,
    stderr: '',
  })
  const denied = ['setpriv', '--reuid=65534', '--clear-groups', ...bondsocks('status')]
  t.match(await outcome(lab.argv('cpe', denied)), { code: 1, stderr: /is for root and the control_group of its config: run it/ })

  const monitor = start(t, lab.argv('cpe', bondsocks('monitor', '--json')))
  await monitor.waitFor(/"about":.*"role":"gateway"/)
  const source = { host: lab.addresses.server, port: ports.source }
  // The kernel is watched a moment later.
  const isJoining = async () => {
    await client.call('download', { ...source, bytes: 200_000 })
    return /"type":"sf_established",.*"wan":"lte"/.test(monitor.output)
  }
  t.ok(await settle(isJoining, (isSo) => isSo))
  const download = client.call('download', { ...source, bytes: 35_000_000 })
  const bonded = await settle(
    ofGateway,
    ({ bundle }) => bundle.whole === 1 && bundle.members.every((one) => one.moved_bytes > 1e6),
  )
  t.match(bonded.bundle, { connections: 1, whole: 1, members: [{ wan: 'dsl' }, { wan: 'lte' }] })
  t.match(bonded.busiest, [{ protocol: 'mptcp', subflows: [{ joining: false }, { joining: false }] }])
  t.same(bonded.busiest[0]?.subflows.map(({ wan }) => wan).sort(), ['dsl', 'lte'])
  t.match(bonded.hags, [{ address: lab.addresses.hag, state: 'up', is_first: true, refused: [] }])
  // 20 and 30 Mbit/s, with room for a busy machine.
  const carries = ({ wans }: GatewayStatus, share: number) =>
    wans.every(({ name, received_per_second: rate }) => rate > share * (name === 'dsl' ? 2.5e6 : 3.75e6))
  const fast = await settle(ofGateway, (now) => carries(now, 0.75))
  t.ok(carries(fast, 0.75) && !carries(fast, 1.1), `${fast.wans.map((wan) => wan.received_per_second)} bytes a second`)
  t.match(await status('cpe'), { code: 0, stdout: /\nbonded over dsl and lte\n/ })
  const hag = await ofHag()
  t.match(hag, { listens: { addresses: [lab.addresses.hag], protocol: 'mptcp' }, homes: [{ connections: 1 }] })
  t.equal(hag.busiest[0]?.subflows.length, 2)

  await lab.carrier('lte', false)
  const cut = await settle(ofGateway, ({ wans }) => wans[1]?.links[0]?.why.includes('carrier') === true)
  t.match(cut.wans[1]?.links, [{ state: 'down', why: /has no carrier/ }])
  t.match(await status('cpe'), {
    stdout: /\nnot bonded: only dsl carries connections to HAGs\n(?:.|\n)*lte +down \d+ s(?:.|\n)*has no carrier/,
  })
  t.match(await download, { intact: true, error: undefined })
  await monitor.waitFor(
    /"event":\{"at":"[^"]+Z","type":"wan-changed","level":"warn","text":"WAN lte is down: .*"wan":"lte","state":"down"/,
  )
  await monitor.waitFor(/"type":"sf_closed",.*"wan":"lte"/)

  t.match(await status('hag', '-c', world.config('hag')), { code: 0, stdout: /HAG .*\nlistens on 203\.0\.113\.3:1080\n/ })
  await lab.exec('cpe', ['kill', '-KILL', String(gateway.pid)])
  t.same(await monitor.exited, { code: 0, signal: null }, 'nothing is left to tell')
  t.match(await outcome(lab.argv('cpe', bondsocks('monitor'))), { code: 3 })
  t.match(
    await settle(
      () => status('cpe'),
      ({ code }) => code === 3,
    ),
    { code: 3 },
  )
  // The guardian has run `remove`.
  const addon = join(import.meta.dirname, '../../build/bondsocks.node')
  const cookie = await world.execute('cpe')(process.execPath, '-p', `require('${addon}').netnsCookie()`)
  const left = () => readdirSync('/run/bondsocks').filter((name) => name.startsWith(`net-${cookie.trim()}.`))
  t.same(await settle(left, (names) => names.length === 0), [])
})
