/** What the kernel says is this machine, where a list of interface addresses does not know it. */
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { ports, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('a HAG connects nobody to itself', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const { hag: address } = world.lab.addresses
  const hag = await world.startHag({})
  const onHag = world.execute('hag')
  const cpe = world.execute('cpe')
  const answerFor = (host: string, port = 22) =>
    cpe('sh', '-c', `curl -sS -m 5 --socks5 ${address}:1080 http://${host}:${port}/ 2>&1 || true`)
  const refused = /\(2\)|not allowed/i
  await onHag('ip', 'link', 'add', 'unplugged', 'type', 'veth', 'peer', 'name', 'unplugged1')
  await onHag('ip', 'link', 'set', 'unplugged', 'up')
  // Asked before each of them is there, so that nothing that is remembered helps.
  for (const [what, host, add] of [
    ['a local route (AnyIP)', '192.0.2.77', ['ip', 'route', 'add', 'local', '192.0.2.0/24', 'dev', 'lo']],
    ['IPv6', '[2001:db8:77::9]', ['ip', '-6', 'route', 'add', 'local', '2001:db8:77::/48', 'dev', 'lo']],
    ['an address without carrier', '198.51.99.1', ['ip', 'address', 'add', '198.51.99.1/24', 'dev', 'unplugged']],
    ['its broadcast address', '198.51.98.255', ['ip', 'address', 'add', '198.51.98.1/24', 'brd', '+', 'dev', 'unplugged']],
  ] as const) {
    t.notMatch(await answerFor(host), refused, `${what}: elsewhere`)
    await onHag(...add)
    t.match(await answerFor(host), refused, what)
  }
  const { server } = world.lab.addresses
  const size = await cpe('sh', '-c', `curl -sS --socks5 ${address}:1080 http://${server}:${ports.http}/4/1000 | wc -c`)
  t.equal(size.trim(), '1000', 'and others to others')
  await hag.end()
})

for (const onHagDown of ['direct', 'reject'] as const) {
  t.test(`what a HAG's machine offers beside it, with on_hag_down: ${onHagDown}`, { skip: needsRoot }, async (t) => {
    const world = await World.create(t, { shaped: false })
    const { hag: host } = world.lab.addresses
    const services = await startAgent(t, { argv: (...argv) => world.lab.argv('hag', argv) })
    await services.call('source', ports.source)
    // Open to the Internet, as an owner would have it; the firewall lets the machine do to itself what it wants.
    const iptables = (...words: string[]) => world.execute('hag')('iptables', '-A', 'INPUT', ...words)
    await iptables('-i', 'lo', '-j', 'ACCEPT')
    await iptables('-p', 'tcp', '--dport', `${ports.sink}`, '-j', 'REJECT')
    await services.call('sink', ports.sink)
    await world.startHag()
    await world.startGateway({ on_hag_down: onHagDown })
    const fetch = (port: number) => world.client.call('download', { host, port, bytes: 100_000 })
    t.match(await fetch(ports.source), { intact: true, error: undefined })
    t.match(await fetch(ports.sink), { intact: false }, 'not what its firewall closes')
    const server = { host: world.lab.addresses.server, port: ports.source, bytes: 100_000 }
    t.match(await world.client.call('download', server), { intact: true, error: undefined })
  })
}
