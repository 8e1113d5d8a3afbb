/** A HAG by name with addresses of both families, where one WAN has IPv6 only in name: all WANs are used, whichever gateway it is. */
import t from 'tap'
import { ports, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('the family that most WANs have', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.create(t)
  const { hag2, hag2v6, server: host } = world.lab.addresses
  await world.dns({ 'hag.example.net': { A: [hag2], AAAA: [hag2v6] } })
  // One HAG for each family: what `listen` takes is one address.
  await world.startHag({ listen: { address: hag2 }, clients: ['10.0.0.0/8'], allow: ['198.51.100.0/24'] }, 'hag2')
  const six = world.start(
    'hag2',
    'hag',
    '-c',
    world.file('six.yaml', JSON.stringify({ listen: { address: hag2v6 }, clients: ['fd00::/16'], allow: ['198.51.100.0/24'] })),
  )
  await six.waitFor(/HAG listens/)
  // What comes for LTE's IPv6 address gets lost.
  await world.execute('hag')('ip', '-6', 'route', 'add', 'blackhole', 'fd00:2::2/128')
  const download = async () => {
    const before = await world.lab.wanBytes()
    t.match(await world.client.call('download', { host, port: ports.source, bytes: 8_000_000 }), {
      intact: true,
      error: undefined,
    })
    const after = await world.lab.wanBytes()
    return ['dsl', 'lte'].map((wan) => Math.round(((after[wan]?.down ?? 0) - (before[wan]?.down ?? 0)) / 1e6))
  }
  // One that prefers the IPv6 address where both are as good.
  world.etc('cpe', 'machine-id', `${'2'.repeat(32)}\n`)
  const gateway = await world.startGateway({ hags: [{ name: 'hag.example.net' }] })
  await gateway.waitFor(/WAN dsl .*is up/)
  await gateway.waitFor(/WAN lte .*is up/)
  const carried = await download()
  t.ok(
    carried.every((megabytes) => megabytes >= 1),
    `DSL and LTE carried ${carried} MB`,
  )
})
