/** A path that drops full-size packets without a word: seen, not used while another WAN works, and used with the MTU of its route. */
import t from 'tap'
import { remeasure, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('small packets only', { skip: needsRoot }, async (t) => {
  const wans = ['dsl', 'lte'].map((name) => ({ name, interface: name, metered: false }))
  const world = await World.create(t, { gateway: { wans } })
  const { lab } = world
  const download = async () => {
    const { wans, outcome } = await world.downloadByWans(3_000_000)
    t.match(outcome, { intact: true, error: undefined })
    return wans
  }
  const [hag, cpe] = [world.execute('hag'), world.execute('cpe')]
  const drop = (chain: string, option: string) =>
    hag('iptables', '-t', 'mangle', '-A', chain, option, 'lte', '-m', 'length', '--length', '1301:', '-j', 'DROP')
  // What the rules measure is to be what a line carries.
  for (const end of [hag, cpe]) await end('ip', 'link', 'set', 'lte', 'gso_max_segs', '1')
  await drop('PREROUTING', '-i')
  await drop('POSTROUTING', '-o')
  await world.startHag()
  const gateway = await world.startGateway()
  await gateway.waitFor(/WAN lte is up/)
  await gateway.waitFor(/WAN lte is down: full-size packets vanish on its path, small ones pass/)
  const left = await settle(
    () => world.endpoints(),
    (devices) => devices.length === 1,
    5000,
  )
  t.same(left, ['dsl'])
  t.same(await download(), ['dsl'], 'what works is used')
  const { stdout: route } = await lab.exec('cpe', ['ip', 'route', 'show', 'default', 'dev', 'lte'])
  await cpe('ip', 'route', 'replace', ...route.trim().split(/\s+/), 'dev', 'lte', 'mtu', '1300')
  await gateway.waitFor(/WAN lte carries full-size packets again/)
  await settle(
    () => world.endpoints(),
    (devices) => devices.length === 2,
    5000,
  )
  const wansAfter = await remeasure(download, ({ length }) => length === 2)
  t.same(wansAfter, ['dsl', 'lte'], 'the MTU of its default route is that of ours')
  t.same(await gateway.end(), { code: 0, signal: null })
})
