/** A HAG in a cloud: behind 1:1 NAT, whose public address does not answer from inside, for gateways of any address. */
import t from 'tap'
import { takesPipelined } from '../../src/gateway/hags/capabilities.js'
import { EngineUnderTest, needsAddon } from '../support/engine.js'
import { ports, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('a HAG that cannot reach its own public address', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  const { hag2: address, server: host } = world.lab.addresses
  const inside = '10.77.0.4'
  const router = world.execute('hag')
  await router('ip', 'address', 'add', '10.77.0.1/24', 'dev', 'hag2')
  const iptables = (...words: string[]) => router('iptables', ...words)
  await iptables('-t', 'nat', '-A', 'PREROUTING', '!', '-i', 'hag2', '-d', address, '-j', 'DNAT', '--to', inside)
  await iptables('-t', 'nat', '-A', 'POSTROUTING', '-s', inside, '!', '-o', 'hag2', '-j', 'SNAT', '--to', address)
  await iptables('-A', 'FORWARD', '-i', 'hag2', '-d', address, '-j', 'DROP')
  const machine = world.execute('hag2')
  await machine('ip', 'address', 'add', `${inside}/24`, 'dev', 'eth0')
  await machine('ip', 'address', 'delete', `${address}/31`, 'dev', 'eth0')
  await machine('ip', 'route', 'replace', 'default', 'via', '10.77.0.1')

  const users = { users_file: world.file('users', 'home:open sesame\n') }
  await world.startHag({ listen: { address: inside }, clients: ['0.0.0.0/0'], ...users }, 'hag2')
  const secret = world.file('password', 'open sesame\n')
  const gateway = await world.startGateway({ hags: [{ address, username: 'home', password_file: secret }] })
  // The first check is over.
  await sleep(11_000)
  t.notMatch(gateway.output, /HAG \S+ is down|refuses us/)
  const before = await world.lab.wanBytes()
  t.match(await world.client.call('download', { host, port: ports.source, bytes: 8_000_000 }), { intact: true, error: undefined })
  const after = await world.lab.wanBytes()
  for (const wan of ['dsl', 'lte']) t.ok((after[wan]?.down ?? 0) - (before[wan]?.down ?? 0) > 500_000, `over ${wan}`)
})

t.test('a HAG that lets everybody in is known to take all in one go', { skip: needsAddon }, async (t) => {
  const hag = new EngineUnderTest(t)
  const all = [{ address: '0.0.0.0', bits: 0 }]
  const { engine } = new EngineUnderTest(t)
  for (const authentication of [false, true]) {
    const { address, port } = hag.listen('socks', { authentication, clients: all })
    const target = { address, port, ...(authentication && { username: 'home', password: 'open sesame' }) }
    const isTaken = await takesPipelined(engine, { hag: target, bind: '127.0.0.1' }, { timeoutMs: 2000 })
    t.equal(isTaken, true, `authentication ${authentication}`)
  }
})
