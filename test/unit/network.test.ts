/** What the set-up of a given machine is, as literal text. */
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { fakeNetwork, fakeWorld, gateway, snapshot, texts } from '../support/network-world.js'

t.test('the whole set-up of two WANs, one of them with IPv6, in its order', async (t) => {
  const { network } = await fakeNetwork()
  const { steps, wans, notes } = await network.plan(
    gateway({
      wans: [
        { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1', gateway6: 'fe80::1' },
        { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
      ],
      hags: [{ address: '203.0.113.3' }, { address: '2001:db8:3::3' }],
      bypass: ['10.0.0.0/8', '2001:db8:9::/48'],
      listen: { port: 4444 },
    }),
  )
  t.equal(
    texts(steps).join('\n'),
    `sysctl -w net.mptcp.blackhole_timeout=0
sysctl -w net.mptcp.close_timeout=10
sysctl -w 'net.ipv4.tcp_rmem=4096 524288 16777216'
sysctl -w net.ipv4.tcp_mtu_probing=1
sysctl -w net.ipv4.conf.dsl.rp_filter=2
sysctl -w net.ipv4.conf.lte.rp_filter=2
sysctl -w net.ipv4.ip_forward=1
sysctl -w net.ipv6.conf.default.accept_ra=2
sysctl -w net.ipv6.conf.dsl.accept_ra=2
sysctl -w net.ipv6.conf.lte.accept_ra=2
sysctl -w net.ipv6.conf.all.forwarding=1
ip route add 10.1.0.0/24 dev dsl scope link src 10.1.0.2 proto 158 table 5800
ip route add 192.168.1.0/24 dev br0 scope link proto 158 table 5800
ip route add default via 10.1.0.1 dev dsl src 10.1.0.2 proto 158 table 5800
ip route add 10.2.0.0/24 dev lte scope link src 10.2.0.2 proto 158 table 5801
ip route add 192.168.1.0/24 dev br0 scope link proto 158 table 5801
ip route add default via 10.2.0.1 dev lte src 10.2.0.2 proto 158 table 5801
ip route add default via 10.1.0.1 dev dsl src 10.1.0.2 proto 158 table 5809
ip rule add from 10.1.0.2 lookup 5800 pref 700 protocol 158
ip rule add from 10.2.0.2 lookup 5801 pref 701 protocol 158
ip rule add from all lookup 254 suppress_prefixlength 0 pref 32764 protocol 158
ip rule add from all lookup 5809 pref 32765 protocol 158
ip -6 route add 2001:db8:1::/64 dev dsl src 2001:db8:1::2 proto 158 table 5800
ip -6 route add default via fe80::1 dev dsl src 2001:db8:1::2 proto 158 table 5800
ip -6 route add default via fe80::1 dev dsl proto 158 table 5809
ip -6 rule add from 2001:db8:1::2 lookup 5800 pref 700 protocol 158
ip -6 rule add from all lookup 254 suppress_prefixlength 0 pref 32764 protocol 158
ip -6 rule add from all lookup 5809 pref 32765 protocol 158
ip mptcp endpoint add 10.1.0.2 dev dsl id 255 subflow
ip mptcp endpoint add 2001:db8:1::2 dev dsl id 254 subflow
ip mptcp endpoint add 10.2.0.2 dev lte id 253 subflow
iptables-restore --noflush -w 5 <<'END'
*filter
:BONDSOCKS - [0:0]
-A BONDSOCKS -i br0 -p tcp -m conntrack --ctstate DNAT -j ACCEPT
-A BONDSOCKS -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-I INPUT 1 ! -i lo -p tcp -m tcp --dport 4444 -j BONDSOCKS
COMMIT
END
ip6tables-restore --noflush -w 5 <<'END'
*filter
:BONDSOCKS - [0:0]
-A BONDSOCKS -i br0 -p tcp -m conntrack --ctstate DNAT -j ACCEPT
-A BONDSOCKS -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-I INPUT 1 ! -i lo -p tcp -m tcp --dport 4444 -j BONDSOCKS
COMMIT
END
iptables-restore --noflush -w 5 <<'END'
*nat
:BONDSOCKS - [0:0]
-A BONDSOCKS -m addrtype --dst-type LOCAL -j RETURN
-A BONDSOCKS -m addrtype --dst-type BROADCAST -j RETURN
-A BONDSOCKS -m addrtype --dst-type MULTICAST -j RETURN
-A BONDSOCKS -d 192.168.1.0/24 -j RETURN
-A BONDSOCKS -d 10.0.0.0/8 -j RETURN
-A BONDSOCKS -d 10.1.0.0/24 -j RETURN
-A BONDSOCKS -d 10.2.0.0/24 -j RETURN
-A BONDSOCKS -i br0 -p tcp -j REDIRECT --to-ports 4444
-A PREROUTING -i br0 -p tcp -j BONDSOCKS
-A INPUT -i br0 -p tcp -m tcp --dport 4444 -m comment --comment BONDSOCKS
COMMIT
END
ip6tables-restore --noflush -w 5 <<'END'
*nat
:BONDSOCKS - [0:0]
-A BONDSOCKS -m addrtype --dst-type LOCAL -j RETURN
-A BONDSOCKS -m addrtype --dst-type MULTICAST -j RETURN
-A BONDSOCKS -d 2001:db8:9::/48 -j RETURN
-A BONDSOCKS -d 2001:db8:1::/64 -j RETURN
-A BONDSOCKS -i br0 -p tcp -j REDIRECT --to-ports 4444
-A PREROUTING -i br0 -p tcp -j BONDSOCKS
-A INPUT -i br0 -p tcp -m tcp --dport 4444 -m comment --comment BONDSOCKS
COMMIT
END`,
  )
  t.same(wans, [
    { name: 'dsl', interface: 'dsl', address4: '10.1.0.2', address6: '2001:db8:1::2' },
    { name: 'lte', interface: 'lte', address4: '10.2.0.2' },
  ])
  t.same(notes, [])
})

t.test('an IPv6 default route does not stand for the IPv4 one that the kernel has dropped', async (t) => {
  const { kernel, network } = await fakeNetwork()
  const config = gateway({
    wans: [
      { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1', gateway6: 'fe80::1' },
      { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
    ],
    hags: [{ address: '203.0.113.3' }, { address: '2001:db8:3::3' }],
  })
  await network.apply(config)
  // With its last IPv4 address an interface loses its IPv4 routes, ours too. The rule stays.
  kernel.removeAddress('dsl', '10.1.0.2/24')
  kernel.addAddress('dsl', '10.1.0.2/24')
  const { notes, wans } = await network.plan(config)
  t.notMatch(notes.join('; '), /the kernel has no way/)
  t.equal(wans.find(({ name }) => name === 'dsl')?.address4, '10.1.0.2')
})

t.test(
  'the gateway is learned from the default route with the smallest metric; a point-to-point device needs none',
  async (t) => {
    const { network, kernel } = await fakeNetwork()
    kernel.addDevice('ppp0', ['POINTOPOINT', 'NOARP', 'UP', 'LOWER_UP'])
    kernel.addAddress('ppp0', '10.3.0.2/32')
    for (const command of [
      'default via 10.1.0.7 dev dsl metric 300',
      'default via 10.1.0.6 dev dsl metric 200',
      'default via 10.2.0.5 dev lte',
    ]) {
      await kernel.run(`ip route add ${command}`.split(' '))
    }
    const config = gateway({ wans: ['dsl', 'lte', 'ppp0'].map((name) => ({ name, interface: name })) })
    const plan = texts((await network.plan(config)).steps)
    t.same(
      plan.filter((text) => text.includes('add default')),
      [
        'ip route add default via 10.1.0.6 dev dsl src 10.1.0.2 proto 158 table 5800',
        'ip route add default via 10.2.0.5 dev lte src 10.2.0.2 proto 158 table 5801',
        'ip route add default dev ppp0 scope link src 10.3.0.2 proto 158 table 5802',
        'ip route add default via 10.1.0.6 dev dsl src 10.1.0.2 proto 158 table 5809',
      ],
    )
    t.ok(plan.includes('ip mptcp limits set subflows 3'), 'room for a subflow on every WAN')
  },
)

t.test('rule_priority puts our rules elsewhere', async (t) => {
  const { network } = await fakeNetwork()
  const priorities = async (more: Record<string, unknown>) =>
    texts((await network.apply(gateway(more))).steps).flatMap(
      (text) => /^ip rule (add|del) from (10\S+) .*pref (\d+)/.exec(text)?.slice(1, 4).join(' ') ?? [],
    )
  t.same(await priorities({}), ['add 10.1.0.2 700', 'add 10.2.0.2 701'])
  t.same(await priorities({ rule_priority: 900 }), [
    'add 10.1.0.2 900',
    'add 10.2.0.2 901',
    'del 10.1.0.2 700',
    'del 10.2.0.2 701',
  ])
})

t.test('a gateway beyond the connected networks is taken to be on the link', async (t) => {
  const { network } = await fakeNetwork()
  const config = gateway({ wans: [{ name: 'dsl', interface: 'dsl', gateway: '172.31.1.1' }] })
  t.ok(
    texts((await network.apply(config)).steps).includes(
      'ip route add default via 172.31.1.1 dev dsl src 10.1.0.2 proto 158 onlink table 5800',
    ),
  )
  t.same((await network.plan(config)).steps, [])
})

t.test('the IPv6 source is a global address that stays', async (t) => {
  const { network, kernel } = await fakeNetwork()
  kernel.addAddress('lte', 'fd00:2::2/64')
  t.match((await network.plan(gateway())).notes, ['WAN dsl: no IPv6, because it has neither a default route nor "gateway6"'])
  await kernel.run('ip -6 route add default via fe80::1 dev lte'.split(' '))
  t.equal((await network.plan(gateway())).wans[1]?.address6, 'fd00:2::2')
  kernel.addAddress('lte', '2001:db8:2::2/64')
  t.equal((await network.plan(gateway())).wans[1]?.address6, '2001:db8:2::2', 'rather than a unique local one')
})

t.test('a WAN without a way out by IPv6: said where it has a global address of its own', async (t) => {
  const notes = async (address: string, lan = ['br0']) => {
    const { network, kernel } = await fakeNetwork()
    kernel.addAddress('lte', address)
    const { notes } = await network.plan(gateway({ lan: { interfaces: lan } }))
    return notes.filter((one) => one.startsWith('WAN lte'))
  }
  t.match(await notes('2001:db8:2::2/64'), ['WAN lte: no IPv6, because it has neither a default route nor "gateway6"'])
  t.same(await notes('fd00:2::2/64'), [], "the home's own")
  t.same(await notes('2001:db8:2::2/64', ['lte']), [], "the LAN's")
})

t.test('a family that no HAG can reach: not redirected, or refused', async (t) => {
  for (const [on_hag_down, redirected, accepted] of [
    ['direct', false, true],
    ['reject', true, false],
  ] as const) {
    const { network, kernel } = await fakeNetwork()
    const { notes } = await network.apply(gateway({ on_hag_down }), { unserved: new Map([[6, 'none has IPv6']]) })
    const { nat4, nat6, filter4, filter6 } = await snapshot(kernel)
    const has = (lines: readonly string[], word: string) => lines.join('\n').includes(word)
    t.same([has(nat6, 'REDIRECT'), has(filter6, 'ACCEPT\n-A BONDSOCKS')], [redirected, accepted], on_hag_down)
    t.same([has(nat4, 'REDIRECT'), has(filter4, 'ACCEPT\n-A BONDSOCKS')], [true, true])
    t.notMatch(nat6.join('\n'), /-A INPUT/, 'what does not arrive is not counted')
    t.ok(notes.includes('none has IPv6'))
  }
})

t.test('buffers and limits of others are never lowered', async (t) => {
  const { network, kernel } = await fakeNetwork((kernel) => kernel.setSysctl('net/ipv4/tcp_rmem', '4096 1048576 67108864'))
  await kernel.run('ip mptcp limits set subflows 8'.split(' '))
  t.notMatch(texts((await network.plan(gateway())).steps).join('\n'), /tcp_[rw]mem|limits/)
})

t.test('router advertisements are not turned on where they were off', async (t) => {
  const { network } = await fakeNetwork((kernel) => {
    kernel.setSysctl('net/ipv6/conf/dsl/accept_ra', '0')
    kernel.setSysctl('net/ipv6/conf/lte/forwarding', '1')
  })
  t.notMatch(texts((await network.apply(gateway())).steps).join('\n'), /(dsl|lte)\.accept_ra/)
  t.same((await network.plan(gateway())).steps, [], 'nor later')
})

t.test('a quick pass that fails leaves our jumps where the one before put them', async (t) => {
  const { network, kernel } = await fakeNetwork()
  const before = gateway({ quic: 'reject' })
  await network.apply(before)
  const theirs = ['INPUT', 'FORWARD'].map((chain) => `-I ${chain} -p udp -j ACCEPT`)
  await kernel.run(['iptables-restore', '--noflush'], ['*filter', ...theirs, 'COMMIT', ''].join('\n'))
  await network.apply(before)
  const set = await snapshot(kernel)
  const run = kernel.run.bind(kernel)
  let failures = 0
  kernel.run = async (argv, input) =>
    input?.startsWith('*nat') && failures++ === 0 ? { code: 1, stdout: '', stderr: 'injected' } : run(argv, input)
  await t.rejects(
    network.apply(gateway({ quic: 'reject', listen: { port: 4444 } }), { quick: true }),
    /the network is as it was before/,
  )
  t.same(await snapshot(kernel), set)
})

t.test(
  'eight WANs with both families, and a HAG by name: each has an endpoint of the family that HAGs are used by',
  async (t) => {
    const world = fakeWorld()
    await world.addDevice('br0')
    const wans = Array.from({ length: 8 }, (_, at) => ({
      name: `wan${at}`,
      interface: `wan${at}`,
      gateway: `10.${at}.0.1`,
      gateway6: 'fe80::1',
    }))
    for (const [at, { name }] of wans.entries()) {
      await world.addDevice(name)
      await world.addAddress(name, `10.${at}.0.2/24`)
      // The last one has IPv4 alone.
      if (at < 7) await world.addAddress(name, `2001:db8:${at}::2/64`)
    }
    const network = new Network(world.kernel)
    const config = gateway({ wans, hags: [{ name: 'hag.example' }] })
    const devices = async (...argument: Parameters<Network['apply']>) => {
      const { notes } = await network.apply(...argument)
      const { stdout } = await world.kernel.run(['ip', '-j', 'mptcp', 'endpoint', 'show'])
      const found = JSON.parse(stdout) as { address: string; dev: string }[]
      const of = (isSix: boolean) =>
        found
          .filter(({ address }) => address.includes(':') === isSix)
          .map(({ dev }) => dev)
          .sort()
          .join('')
      return { four: of(false), six: of(true), notes }
    }
    const all = wans.map(({ name }) => name).join('')
    const note = 'IPv6 is bonded over fewer WANs: the kernel holds 8 MPTCP endpoints, IPv4 comes first'
    t.match(await devices(config), { four: all, six: '', notes: [note] })
    t.match(await devices(config, { hagFamilies: [6, 4] }), { four: 'wan0', six: all.replace('wan7', '') })
    t.match(await devices(config, { hagFamilies: [6] }), { four: '', six: all.replace('wan7', ''), notes: [] })
    t.match(await devices(config, { hagFamilies: [4] }), { four: all, six: '', notes: [] })
  },
)

t.test('eight places for endpoints: others first, and ours make room before they are added', async (t) => {
  const { network, kernel } = await fakeNetwork()
  for (let id = 1; id <= 7; id++) await kernel.run(`ip mptcp endpoint add 198.51.100.${id} id ${id} signal`.split(' '))
  const { notes } = await network.apply(gateway())
  t.match(notes, ['no MPTCP endpoint for 10.2.0.2: the kernel holds 8 at most'])
  kernel.addAddress('dsl', '10.1.0.3/24')
  kernel.removeAddress('dsl', '10.1.0.2/24')
  kernel.addAddress('dsl', '10.1.0.4/24')
  const endpoints = texts((await network.apply(gateway())).steps).filter((text) => text.includes('endpoint'))
  t.same(endpoints, ['ip mptcp endpoint delete id 255', 'ip mptcp endpoint add 10.1.0.3 dev dsl id 255 subflow'])
})

t.test('a sysctl below an interface with a dot in its name is written as sysctl(8) reads it', async (t) => {
  const { network, kernel } = await fakeNetwork()
  kernel.addDevice('eth0.7')
  kernel.addAddress('eth0.7', '10.7.0.2/24')
  const config = gateway({ wans: [{ name: 'dsl', interface: 'eth0.7', gateway: '10.7.0.1' }] })
  t.ok(texts((await network.plan(config)).steps).includes('sysctl -w net.ipv4.conf.eth0/7.rp_filter=2'))
})
