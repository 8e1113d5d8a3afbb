/** What the WANs' roles do to a running download: a backup takes over, an overflow WAN joins, a crawling WAN is taken out, a volume ends. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const wans = (lte: object) => [
  { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' },
  { name: 'lte', interface: 'lte', gateway: '10.2.0.1', ...lte },
]
const becomes = (world: World, names: string, patienceMs: number) =>
  settle(
    async () => (await world.endpoints()).join(),
    (now) => now === names,
    patienceMs,
  )

t.test('a backup takes over a running download, and goes out of use again', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { gateway: { wans: wans({ role: 'backup' }) } })
  const host = world.lab.addresses.server
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
  const download = world.client.call('download', { host, port: ports.source, bytes: 25_000_000 })
  await sleep(3000)
  t.ok(((await world.lab.wanBytes()).lte?.down ?? 0) < 100_000, 'it carries nothing until then')
  await world.lab.carrier('dsl', false)
  t.equal(await becomes(world, 'lte', 10_000), 'lte')
  const carried = await settle(
    async () => (await world.lab.wanBytes()).lte?.down ?? 0,
    (bytes) => bytes > 1_000_000,
    5000,
  )
  t.ok(carried > 1_000_000, 'the download goes on over it')
  await world.lab.carrier('dsl', true)
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
  t.match(await download, { intact: true, error: undefined })
  t.match(world.gateway.output, /backup WAN lte takes over/)
})

t.test('an overflow WAN joins a full line and leaves', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.run(t, { gateway: { wans: wans({ role: 'overflow' }) } })
  const host = world.lab.addresses.server
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
  const download = world.client.call('download', { host, port: ports.source, bytes: 50_000_000 })
  await world.gateway.waitFor(/overflow WAN lte joins: dsl has been full for 3 s at 1\d\.\d Mbit/, 25_000)
  t.equal(await becomes(world, 'dsl,lte', 10_000), 'dsl,lte')
  t.match(await download, { intact: true, error: undefined })
  const carried = (await world.lab.wanBytes()).lte?.down ?? 0
  t.ok(carried > 10_000_000, `LTE carried ${carried} bytes`)
  await world.gateway.waitFor(/overflow WAN lte leaves/, 25_000)
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
})

t.test('a WAN that drags is taken out, and that is said', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.create(t)
  // From the start: a WAN whose round trip grows tenfold at once counts as down.
  await world.lab.setLink('lte', { rateDown: 0.15, rateUp: 0.15, delayMs: 400 })
  await world.startHag()
  const gateway = await world.startGateway({ drain_seconds: 0 })
  await gateway.waitFor(/WAN lte is up/)
  const host = world.lab.addresses.server
  const download = world.client.call('download', { host, port: ports.source, bytes: 90_000_000 })
  await gateway.waitFor(/WAN lte stays out for 1 min: the sum was .* with it and is .* without it/, 70_000)
  t.match(await download, { intact: true, error: undefined })
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
})

t.test('a volume that is used up makes a backup, also after a restart', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.create(t)
  const volume_file = world.file('volume.json', '')
  await world.startHag()
  const how = { wans: wans({ monthly_gb: 0.003 }), volume_file, drain_seconds: 0 }
  const gateway = await world.startGateway(how)
  await gateway.waitFor(/volume\.json cannot be read/)
  const host = world.lab.addresses.server
  const download = world.client.call('download', { host, port: ports.source, bytes: 20_000_000 })
  await gateway.waitFor(/WAN lte is out of use: its monthly volume is used up/)
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
  t.match(await download, { intact: true, error: undefined })
  await gateway.end()
  t.match(readFileSync(volume_file, 'utf8'), /"lte":\d{7}/)
  await world.startGateway(how)
  t.equal(await becomes(world, 'dsl', 10_000), 'dsl')
})
