/** The ports of running subflows: the kernel compares devices as well, so a socket of ours that is bound to none could get one of them. */
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('new connections never get the port of a running subflow', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  await world.startHag()
  const cpe = world.execute('cpe')
  // Few ports, each of which is soon tried again. What has ended gives its port back at once.
  await cpe('sysctl', '-qw', 'net.ipv4.ip_local_port_range=40000 40099', 'net.ipv4.tcp_tw_reuse=1')
  // A prepared connection has subflows, too, and ends.
  const gateway = await world.startGateway({ prepared_connections: 0 })
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  const { client, lab } = world
  const host = lab.addresses.server
  // They begin on the slower WAN, so that they are joined over the one on which new connections begin.
  await lab.carrier('dsl', false)
  await gateway.waitFor(/WAN dsl is down/)
  t.equal(await client.call('hold', { host, port: ports.echo }, 20), 20)
  await lab.carrier('dsl', true)
  const atHag = async () => {
    // Probes and watched connections are plain TCP.
    const lines = await world.execute('hag')('ss', '-tniOH', 'state', 'established', 'sport = :1080')
    const subflows = lines.split('\n').filter((line) => line.includes('tcp-ulp-mptcp'))
    return new Set(subflows.map((line) => line.trim().split(/\s+/)[3]))
  }
  const bonded = await settle(atHag, (all) => all.size >= 40)
  const before = [...bonded]
  t.equal(before.length, 40, 'each over both WANs')
  for (let i = 0; i < 60; i++) await client.call('download', { host, port: ports.source, bytes: 100 })
  const after = await atHag()
  t.same(
    before.filter((subflow) => !after.has(subflow)),
    [],
    'all run on',
  )
  t.equal(await client.call('ping'), 20)
})
