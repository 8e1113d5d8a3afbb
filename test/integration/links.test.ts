/** Links, addresses and other people's hands on the network, while the gateway runs: its set-up follows, connections go on. */
import t from 'tap'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { snapshot, stillness } from '../support/snapshot.js'

t.test('a link that goes down and comes back', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  await world.startHag()
  const before = await stillness(world.execute('cpe'))
  const gateway = await world.startGateway({ drain_seconds: 0 })
  t.same(await world.endpoints(), ['dsl', 'lte'])
  const host = world.lab.addresses.server
  const download = world.client.call('download', { host, port: ports.source, bytes: 60_000_000 })
  await sleep(2000)
  await world.lab.carrier('dsl', false)
  const without = await settle(
    () => world.endpoints(),
    (names) => names.join() === 'lte',
    5000,
  )
  t.same(without, ['lte'], 'its endpoint is gone')
  await gateway.waitFor(/WAN dsl is down: interface dsl has no carrier/)
  const unredirected = () => world.execute('cpe')('ip', 'route', 'get', '203.0.113.99')
  // The line is written when it is known; `ip` then takes its time.
  const lte = await settle(unredirected, (text) => text.includes(' dev lte '), 2000)
  t.match(lte, / dev lte /, 'what is not redirected goes the other way')
  const fresh = await world.client.call('download', { host, port: ports.source, bytes: 10_000 })
  t.match(fresh, { intact: true, error: undefined }, 'new connections begin on the other WAN')
  t.ok(fresh.seconds < 1, `at once: ${fresh.seconds} s`)
  await world.lab.carrier('dsl', true)
  const again = await settle(
    () => world.endpoints(),
    (names) => names.length === 2,
    5000,
  )
  t.same(again, ['dsl', 'lte'], 'and back')
  t.match(await settle(unredirected, (text) => text.includes(' dev dsl ')), / dev dsl /)
  const carry = async () => {
    const start = (await world.lab.wanBytes()).dsl?.down ?? 0
    await sleep(1500)
    return ((await world.lab.wanBytes()).dsl?.down ?? 0) - start
  }
  const carried = await remeasure(carry, (bytes) => bytes > 200_000)
  t.ok(carried > 200_000, `the running download uses it again: ${carried} bytes in 1.5 s`)
  t.match(await download, { intact: true, error: undefined })
  t.same(await gateway.end('SIGTERM'), { code: 0, signal: null })
  // A TUN device that was never told of a carrier says UNKNOWN, afterwards UP.
  const same = (text: string) => text.replace(/^dsl +(UNKNOWN|UP) +/m, 'dsl ')
  t.equal(same(await snapshot(world.execute('cpe'))), same(before), 'and nothing is left in the end')
})

t.test('a WAN that gets another address, in the middle of a download', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const cpe = world.execute('cpe')
  const { server } = world.lab.addresses
  const download = world.client.call('download', { host: server, port: ports.source, bytes: 25_000_000 })
  await sleep(1500)
  // As a DHCP client does it; the main table's default route went with the address.
  await cpe('ip', 'address', 'delete', '10.1.0.2/24', 'dev', 'dsl')
  await cpe('ip', 'address', 'add', '10.1.0.77/24', 'dev', 'dsl')
  const rules = await settle(
    () => cpe('ip', 'rule', 'show'),
    (text) => text.includes('from 10.1.0.77') && !text.includes('from 10.1.0.2 '),
    5000,
  )
  t.match(rules, /from 10\.1\.0\.77 lookup 5800/)
  t.notMatch(rules, /from 10\.1\.0\.2 /)
  const renewed = await settle(
    () => cpe('ip', 'mptcp', 'endpoint', 'show'),
    (text) => text.includes('10.1.0.77'),
    5000,
  )
  t.match(renewed, /10\.1\.0\.77 .*subflow.* dev dsl/)
  t.match(await download, { intact: true, error: undefined }, 'no byte is lost')
  const carry = async () => {
    const before = (await world.lab.wanBytes()).dsl?.down ?? 0
    t.match(await world.client.call('download', { host: server, port: ports.source, bytes: 5_000_000 }), { intact: true })
    return ((await world.lab.wanBytes()).dsl?.down ?? 0) - before
  }
  const carried = await remeasure(carry, (bytes) => bytes > 1_000_000)
  t.ok(carried > 1_000_000, `new connections use the new address: ${carried} bytes`)
})

t.test('another program takes away a rule and the chain, and puts its own beside them', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { shaped: false })
  const cpe = world.execute('cpe')
  await cpe('ip', 'rule', 'add', 'from', '10.9.9.9', 'lookup', '77', 'priority', '77')
  await cpe('ip', 'rule', 'delete', 'priority', '701')
  const rules = await settle(
    () => cpe('ip', 'rule', 'show'),
    (text) => text.includes('701:'),
    5000,
  )
  t.match(rules, /701:\s+from 10\.2\.0\.2 lookup 5801/)
  t.match(rules, /77:\s+from 10\.9\.9\.9/, "somebody else's stays")
  // As a DHCP client does it, on the WAN that is not the best.
  await cpe('ip', 'route', 'replace', 'default', 'dev', 'lte')
  const unredirected = await settle(
    () => cpe('ip', 'route', 'get', '203.0.113.99'),
    (text) => text.includes(' dev dsl '),
    5000,
  )
  t.match(unredirected, / dev dsl /, 'the default route by the best WAN is in front again')
  t.match(await cpe('ip', 'route', 'show', 'default', 'dev', 'lte'), /default/, "and somebody else's stays")
  await sleep(1000)
  const quiet = await remeasure(
    () => cpe('sh', '-c', 'timeout 2 ip -o monitor link address route rule; true'),
    (text) => text === '',
  )
  t.equal(quiet, '', 'nobody runs after what it did itself')
  // What no monitor tells of.
  await cpe(
    'sh',
    '-c',
    'ip mptcp endpoint delete id $(ip mptcp endpoint show | sed -n "s/.* id \\([0-9]*\\) .* dev lte.*/\\1/p")',
  )
  await cpe('sysctl', '-qw', 'net.ipv4.conf.lte.rp_filter=1')
  t.same(await world.endpoints(), ['dsl'])
  // A firewall that reloads: all of the nat table is new, with rules of its own.
  await cpe('iptables', '-t', 'nat', '-F')
  await cpe('iptables', '-t', 'nat', '-X')
  await cpe('iptables', '-t', 'nat', '-A', 'PREROUTING', '-p', 'tcp', '--dport', '2222', '-j', 'ACCEPT')
  const chain = await settle(
    () => cpe('iptables', '-t', 'nat', '-S'),
    (text) => text.includes('-j BONDSOCKS'),
    3000,
  )
  t.match(chain, /-A PREROUTING -i br0 -p tcp -j BONDSOCKS/)
  t.match(chain, /--dport 2222 -j ACCEPT/, "somebody else's stays")
  t.same(await world.endpoints(), ['dsl', 'lte'], 'an endpoint that was deleted is back')
  t.equal(await cpe('sysctl', '-n', 'net.ipv4.conf.lte.rp_filter'), '2\n', 'and a sysctl')
  t.match(await world.client.call('download', { host: world.lab.addresses.server, port: ports.source, bytes: 100_000 }), {
    intact: true,
  })
})

t.test('all WANs are unplugged for three seconds: connections outlive it', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const { server } = world.lab.addresses
  await world.gateway.waitFor(/WAN dsl is up/)
  const download = world.client.call('download', { host: server, port: ports.source, bytes: 30_000_000 })
  await sleep(1500)
  for (const wan of ['dsl', 'lte']) await world.lab.carrier(wan, false)
  await sleep(3000)
  t.ok((await world.endpoints()).length > 0, 'the last one keeps its endpoint')
  for (const wan of ['lte', 'dsl']) await world.lab.carrier(wan, true)
  t.match(await download, { intact: true, error: undefined })
  const both = await settle(
    () => world.endpoints(),
    (names) => names.length === 2,
  )
  t.same(both, ['dsl', 'lte'])
})
