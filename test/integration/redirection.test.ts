/** What is redirected in networks that are not the plain one: bridges that iptables sees, other names, one card for all. */
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { type Agent, startAgent } from '../support/agent.js'
import { ports, World } from '../support/hybrid.js'
import { connect, createNamespace, type Namespace, needsRoot, type Scope } from '../support/namespaces.js'
import { gateway, netnsWorld } from '../support/network-world.js'

const [near, far] = ['2001:db8:1:1:', '2001:db8:5::2']
const taken = '220 at your service'

/** A client and another router in the LAN; behind that is a server, and where the gateway listens is one that says something else. */
async function home(t: Scope, lanDevice: (cpe: Namespace) => Promise<void>) {
  const world = await netnsWorld(t)
  const { namespace: cpe } = world
  const [client, router] = [await createNamespace(t, 'client'), await createNamespace(t, 'router')]
  for (const [place, device, host] of [
    [client, 'p1', 2],
    [router, 'p2', 254],
  ] as const) {
    await connect(
      { namespace: place, device: 'eth0', addresses: [`192.168.1.${host}/24`, `${near}:${host}/64`] },
      { namespace: cpe, device, addresses: [] },
    )
  }
  for (const address of ['198.51.100.2/32', `${far}/128`]) await router.exec('ip', 'address', 'add', address, 'dev', 'lo')
  await router.exec('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
  await lanDevice(cpe)
  const [lan, server, listener] = (await Promise.all([client, router, cpe].map((place) => startAgent(t, place)))) as Agent[]
  await server?.call('mirror', 80)
  await listener?.call('greeter', 12345)
  const route = async (router: string) => {
    await client.exec('ip', 'route', 'replace', 'default', 'via', `192.168.1.${router}`)
    await client.exec('ip', '-6', 'route', 'replace', 'default', 'via', `${near}:${router}`)
  }
  const talk = async (host: string) => (await lan?.call('talk', { host, port: 80 }, '', taken.length))?.received.trim()
  return { ...world, cpe, router, route, talk, network: new Network(world.kernel) }
}

async function bridge(cpe: Namespace): Promise<void> {
  const add = (...words: string[]) => cpe.exec('ip', 'link', ...words)
  await add('add', 'br0', 'type', 'bridge', 'forward_delay', '0')
  // Not that of a port: to the kernel frames to it are then another host's.
  await add('set', 'br0', 'address', '02:00:00:00:be:ef')
  for (const port of ['p1', 'p2']) await add('set', port, 'master', 'br0')
  await add('set', 'br0', 'up')
  for (const address of ['192.168.1.1/24', `${near}:1/64`]) await cpe.exec('ip', 'address', 'add', address, 'dev', 'br0')
}

async function addWans(world: Awaited<ReturnType<typeof home>>): Promise<void> {
  for (const [name, address] of [
    ['dsl', '10.1.0.2/24'],
    ['lte', '10.2.0.2/24'],
  ] as const) {
    await world.addDevice(name)
    await world.addAddress(name, address)
  }
}

t.test('a bridge that iptables sees: only what is for the gateway to route', { skip: needsRoot }, async (t) => {
  const world = await home(t, bridge)
  await addWans(world)
  const { cpe, route, talk, network } = world
  const switches = ['net.bridge.bridge-nf-call-iptables=1', 'net.bridge.bridge-nf-call-ip6tables=1']
  const lacks = await cpe.exec('sysctl', '-qw', ...switches).catch(() => 'none')
  if (lacks !== '') {
    t.pass('skipped: this kernel has no br_netfilter')
    return
  }
  await network.apply(gateway())
  await route('254')
  t.equal(await talk('198.51.100.2'), '192.168.1.2', 'what crosses the bridge to another router')
  t.equal(await talk(far), `${near}:2`, 'in IPv6 too')
  await route('1')
  t.equal(await talk('198.51.100.2'), taken, 'what is for the gateway is redirected')
  t.equal(await talk(far), taken)
  t.same((await network.plan(gateway())).steps, [], 'as iptables lists it')
  await network.remove()
})

t.test('a port of a bridge is said, and an interface is known by its other name', { skip: needsRoot }, async (t) => {
  const world = await home(t, bridge)
  await addWans(world)
  const { cpe, route, talk, network } = world
  const { notes } = await network.plan(gateway({ lan: { interfaces: ['p1'] } }))
  t.match(notes.join('\n'), /LAN interface p1 is a port of the bridge br0, .* write br0 in its place/)
  const [lan, wan] = ['lan-of-the-whole-house', 'enp3s0']
  await cpe.exec('ip', 'link', 'property', 'add', 'dev', 'br0', 'altname', lan)
  await cpe.exec('ip', 'link', 'property', 'add', 'dev', 'dsl', 'altname', wan)
  const wans = [{ name: 'dsl', interface: wan, gateway: '10.1.0.1' }]
  const plan = await network.apply(gateway({ lan: { interfaces: [lan] }, wans }))
  t.notMatch(plan.notes.join(), /does not exist/)
  t.match(plan.wans, [{ interface: 'dsl', address4: '10.1.0.2' }])
  await route('1')
  t.equal(await talk('198.51.100.2'), taken)
  const missing = { name: 'lte', interface: 'no-such-modem-as-yet', gateway: '10.2.0.1' }
  const late = gateway({ lan: { interfaces: [lan, 'no-such-interface-yet'] }, wans: [...wans, missing], quic: 'reject' })
  await network.apply(late)
  t.equal(await talk('198.51.100.2'), taken)
  await network.apply(gateway({ lan: { interfaces: ['no-such-interface-yet'] }, wans }))
  t.equal(await talk('198.51.100.2').catch(() => ''), '', 'and what is not there yet is no error')
})

t.test('one card for the LAN and a WAN', { skip: needsRoot }, async (t) => {
  const world = await home(t, async (cpe) => {
    await bridge(cpe)
    await cpe.exec('ip', 'address', 'add', '10.1.0.2/24', 'dev', 'br0')
  })
  const { router, route, talk, network } = world
  await router.exec('ip', 'address', 'add', '10.1.0.1/24', 'dev', 'eth0')
  const wans = [{ name: 'dsl', interface: 'br0', gateway: '10.1.0.1' }]
  const plan = await network.apply(gateway({ wans }))
  t.match(plan.wans, [{ interface: 'br0' }])
  await route('1')
  t.equal(await talk('198.51.100.2'), taken, "the LAN's connections are redirected")
  const stranger = await router.exec('bash', '-c', 'exec 2>&1; exec 3<>/dev/tcp/10.1.0.2/12345 || true')
  t.match(stranger, /refused/, 'those of the WAN do not get to the port')
  t.same((await network.plan(gateway({ wans }))).steps, [])
  await network.remove()
})

t.test('tables that iptables cannot list', { skip: needsRoot }, async (t) => {
  const world = await home(t, bridge)
  await addWans(world)
  const { cpe, kernel, network } = world
  // Neither flavour: refused in a sentence, and nothing is there.
  await cpe.exec('nft', 'table ip nat { chain POSTROUTING { type nat hook postrouting priority 100; oifname dsl masquerade; }; }')
  const without = new Network({
    ...kernel,
    run: async (argv, input) =>
      argv[0]?.includes('legacy') ? { code: 127, stdout: '', stderr: `${argv[0]} is not installed` } : kernel.run(argv, input),
  })
  const before = await cpe.exec('nft', 'list', 'ruleset')
  await t.rejects(without.apply(gateway()), {
    code: 'NO_NAT',
    message: /^iptables cannot list the table nat, .*iptables-legacy$/,
  })
  await without.remove()
  t.equal(await cpe.exec('nft', 'list', 'ruleset'), before)

  // A restore that is taken and not shown.
  const blind = new Network({
    ...kernel,
    async run(argv, input) {
      const result = await kernel.run(argv, input)
      return argv.includes('filter') ? { ...result, stdout: result.stdout.replaceAll(/^.*BONDSOCKS.*\n/gm, '') } : result
    },
  })
  await cpe.exec('nft', 'flush', 'ruleset')
  for (let tries = 0; tries < 3; tries++) await t.rejects(blind.apply(gateway()), { code: 'FIREWALL_UNSEEN' })
  t.notMatch(await cpe.exec('nft', 'list', 'ruleset'), /BONDSOCKS/, 'nothing piles up')
  await network.remove()
})

t.test("a modem's own page while no HAG answers, with on_hag_down: reject", { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const modem = await startAgent(t, { argv: (...argv) => world.lab.argv('hag', argv) })
  await modem.call('greeter', 80)
  await world.startGateway({ on_hag_down: 'reject' })
  const ask = (host: string, port: number) => world.client.call('talk', { host, port }, '', 1)
  for (const host of ['10.1.0.1', '10.2.0.1']) t.match((await ask(host, 80)).received, taken, host)
  t.equal((await ask(world.lab.addresses.server, ports.greeter)).received, '', 'the Internet is not reached')
})
