/** What the set-up of a given machine is, as literal text; and the errors of a machine that is not fit. */
import t from 'tap'
import { Network } from '../../src/network/network.js'
import type { FakeKernel } from '../support/fake-kernel.js'
import { fakeWorld, furnish, gateway, printing, snapshot } from '../support/network-world.js'

async function prepare(change: (kernel: FakeKernel) => unknown = () => {}) {
  const world = fakeWorld()
  await furnish(world)
  await change(world.kernel)
  return { ...world, network: new Network(world.kernel) }
}

const lines = (steps: { text: string }[]) => steps.map(({ text }) => text)

t.test('the whole set-up of two WANs, one of them with IPv6, in its order', async (t) => {
  const { network } = await prepare()
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
    lines(steps).join('\n'),
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

t.test('a machine that is not fit: one line, exit code 1, nothing changed', async (t) => {
  const cases: [what: string, (kernel: FakeKernel) => unknown, code: string, message: string][] = [
    [
      'no root',
      (kernel) => (kernel.privileged = false),
      'NOT_ROOT',
      'reading and changing the network set-up needs root (CAP_NET_ADMIN): run it with sudo',
    ],
    ['no ip', (kernel) => kernel.missing.add('ip'), 'NO_IPROUTE2', 'ip is missing: install the package iproute2'],
    [
      'no iptables',
      (kernel) => kernel.missing.add('iptables-save'),
      'NO_IPTABLES',
      'iptables is missing: install the package iptables',
    ],
    [
      'no MPTCP',
      (kernel) => kernel.setSysctl('net/mptcp/enabled', undefined),
      'NO_MPTCP',
      'this kernel has no MPTCP (no /proc/sys/net/mptcp): use Linux 6.1 or later, built with CONFIG_MPTCP',
    ],
  ]
  for (const [what, change, code, message] of cases) {
    const { kernel, network } = await prepare(change)
    await t.rejects(network.plan(gateway()), { name: 'BondsocksError', code, message, exitCode: 1 }, what)
    await t.rejects(network.apply(gateway()), { code, message }, what)
    t.equal(kernel.state, undefined)
  }
})

t.test('an IPv6 default route does not stand for the IPv4 one that the kernel has dropped', async (t) => {
  const { kernel, network } = await prepare()
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

t.test('a WAN that is not fit is left out, and what mends it is said; the other one is used', async (t) => {
  const noGateway = gateway({ wans: [{ name: 'dsl', interface: 'dsl' }, ...gateway().wans.slice(1)] })
  const cases: [what: string, (kernel: FakeKernel) => unknown, note: string, used: string, config?: typeof noGateway][] = [
    [
      'no interface',
      (kernel) => kernel.removeDevice('lte'),
      'WAN lte is down: interface lte does not exist: create it, or correct the config',
      'dsl',
    ],
    [
      'no address',
      (kernel) => kernel.removeAddress('lte', '10.2.0.2/24'),
      'WAN lte is down: interface lte has no address: start its DHCP or PPP client, or give it one',
      'dsl',
    ],
    [
      'interface down',
      (kernel) => {
        kernel.removeDevice('lte')
        kernel.addDevice('lte', ['BROADCAST'])
      },
      'WAN lte is down: interface lte is down: ip link set lte up',
      'dsl',
    ],
    [
      'no gateway',
      () => {},
      'WAN dsl is down: interface dsl has no default route to learn the gateway from: set "gateway" in the config',
      'lte',
      noGateway,
    ],
  ]
  for (const [what, change, note, used, config = gateway()] of cases) {
    const { network } = await prepare(change)
    const { notes, wans } = await network.apply(config)
    t.ok(notes.includes(note), `${what}: ${notes.join('; ')}`)
    t.same(
      wans.map(({ name }) => name),
      [used],
      what,
    )
  }
})

t.test(
  'the gateway is learned from the default route with the smallest metric; a point-to-point device needs none',
  async (t) => {
    const { network, kernel } = await prepare()
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
    const plan = lines((await network.plan(config)).steps)
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
  const { network } = await prepare()
  const priorities = async (more: Record<string, unknown>) =>
    lines((await network.apply(gateway(more))).steps).flatMap(
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
  const { network } = await prepare()
  const config = gateway({ wans: [{ name: 'dsl', interface: 'dsl', gateway: '172.31.1.1' }] })
  t.ok(
    lines((await network.apply(config)).steps).includes(
      'ip route add default via 172.31.1.1 dev dsl src 10.1.0.2 proto 158 onlink table 5800',
    ),
  )
  t.same((await network.plan(config)).steps, [])
})

t.test('the IPv6 source is a global address that stays', async (t) => {
  const { network, kernel } = await prepare()
  kernel.addAddress('lte', 'fd00:2::2/64')
  t.match((await network.plan(gateway())).notes, ['WAN dsl: no IPv6, because there is neither a default route nor "gateway6"'])
  await kernel.run('ip -6 route add default via fe80::1 dev lte'.split(' '))
  t.equal((await network.plan(gateway())).wans[1]?.address6, 'fd00:2::2')
  kernel.addAddress('lte', '2001:db8:2::2/64')
  t.equal((await network.plan(gateway())).wans[1]?.address6, '2001:db8:2::2', 'rather than a unique local one')
})

t.test('what a kernel or a machine lacks is left out, with a note where a user would miss it', async (t) => {
  const { network, kernel } = await prepare((kernel) => {
    kernel.missing.add('ip6tables-save')
    kernel.setSysctl('net/mptcp/blackhole_timeout', undefined)
  })
  const { steps, notes } = await network.apply(gateway())
  t.match(notes, [/^IPv6 is not redirected: ip6tables is missing: install the package iptables$/])
  t.notMatch(lines(steps).join('\n'), /ip6tables|blackhole/)
  t.same((await network.plan(gateway())).steps, [])
  t.ok((await network.remove()).length > 0, 'remove does not need it either')
  t.equal(kernel.state, undefined)

  const old = await prepare((kernel) => {
    for (const name of ['all', 'default', 'br0', 'dsl', 'lte']) kernel.setSysctl(`net/ipv6/conf/${name}/forwarding`, undefined)
    kernel.missing.add('ip6tables-save')
  })
  const without = await old.network.plan(gateway())
  t.match(without.notes, ['IPv6 is left alone: this kernel has none'])
  t.notMatch(lines(without.steps).join('\n'), /ip6tables|ip -6|ipv6/)
})

t.test('remove takes away what it can where tools or MPTCP have gone, and says what it could not', async (t) => {
  const { network, kernel } = await prepare()
  await network.apply(gateway())
  kernel.missing.add('iptables-save').add('ip6tables-save')
  t.match(lines(await network.remove())[0], /^ip mptcp endpoint delete/)
  kernel.missing.clear()
  t.match(lines(await network.remove())[0], /^iptables-restore/)

  await network.apply(gateway())
  kernel.missing.add('ip6tables-restore')
  await t.rejects(network.remove(), {
    code: 'REMOVE_INCOMPLETE',
    message: 'not everything could be removed: "ip6tables-restore --noflush -w 5" failed: ip6tables-restore is not installed',
  })
  kernel.missing.clear()
  t.equal((await network.remove()).length, 2, 'only that is left')
  t.equal(kernel.state, undefined)
})

t.test('a WAN without a way out by IPv6: said where it has a global address of its own', async (t) => {
  const notes = async (address: string, lan = ['br0']) => {
    const { network, kernel } = await prepare()
    kernel.addAddress('lte', address)
    const { notes } = await network.plan(gateway({ lan: { interfaces: lan } }))
    return notes.filter((one) => one.startsWith('WAN lte'))
  }
  t.match(await notes('2001:db8:2::2/64'), ['WAN lte: no IPv6, because there is neither a default route nor "gateway6"'])
  t.same(await notes('fd00:2::2/64'), [], "the home's own")
  t.same(await notes('2001:db8:2::2/64', ['lte']), [], "the LAN's")
})

t.test('sysctls that cannot be written: what goes without them goes, and says what to set', async (t) => {
  const run = async (change: (kernel: FakeKernel) => unknown) => {
    const { network, kernel } = await prepare(change)
    const before = await snapshot(kernel)
    const plan = await network.apply(gateway())
    t.same(await network.plan(gateway()), { ...plan, steps: [] }, 'what was planned is what is there')
    await network.remove()
    t.same(await snapshot(kernel), before)
    return {
      steps: lines(plan.steps).filter((text) => text.startsWith('sysctl')),
      notes: plan.notes.filter((one) => /sysctl/.test(one)),
    }
  }
  const all = ['net/mptcp/close_timeout', 'net/ipv4/tcp_rmem', 'net/ipv4/conf/lte/rp_filter', 'net/ipv4/ip_forward']
  const some = await run((kernel) => {
    for (const path of all) kernel.fixed.add(path)
  })
  t.notMatch(some.steps.join(), /close_timeout|rmem|lte.rp_filter|ip_forward/)
  t.match(some.steps.join(), /blackhole_timeout.*dsl.rp_filter/)
  t.same(some.notes, [
    '/proc/sys cannot be written here: make it writable, or set from outside: sysctl -w net.mptcp.close_timeout=10; ' +
      "sysctl -w 'net.ipv4.tcp_rmem=4096 524288 16777216'; sysctl -w net.ipv4.conf.lte.rp_filter=2; sysctl -w net.ipv4.ip_forward=1",
  ])
  const deaf = await run((kernel) => kernel.fixed.add('net/ipv6/conf/dsl/accept_ra'))
  t.notMatch(deaf.steps.join(), /ipv6.conf.all.forwarding/, 'a router hears advertisements only where it is told to')

  const { network, kernel } = await prepare((kernel) => {
    kernel.setSysctl('net/mptcp/enabled', '0')
    kernel.fixed.add('net/mptcp/enabled')
  })
  const before = await snapshot(kernel)
  await t.rejects(network.apply(gateway()), {
    code: 'MPTCP_OFF',
    message: 'MPTCP is switched off, and /proc/sys cannot be written here: sysctl -w net.mptcp.enabled=1',
  })
  t.same(await snapshot(kernel), before)
})

t.test('what iptables lacks: the rest is done without it, and that is said', async (t) => {
  const quic = { quic: 'reject' }
  const run = async (lacking: [words: string, complaint: string]) => {
    const { network, kernel } = await prepare((kernel) => {
      kernel.bridges.add('br0')
      for (const name of ['iptables', 'ip6tables']) kernel.setSysctl(`net/bridge/bridge-nf-call-${name}`, '1')
      kernel.lacking.set(...lacking)
    })
    const before = await snapshot(kernel)
    const { notes } = await network.apply(gateway(quic))
    t.same((await network.apply(gateway(quic))).steps, [], 'once and for all')
    const { nat4, nat6, filter4 } = await snapshot(kernel)
    await network.remove()
    t.same(await snapshot(kernel), before)
    t.match(
      [nat4, nat6].map((one) => one.join('\n')),
      [/REDIRECT/, /REDIRECT/],
    )
    return { nat: nat4.join('\n'), filter: filter4.join('\n'), notes: notes.filter((one) => one.startsWith('this kernel')) }
  }
  for (const complaint of [
    "iptables-restore v1.8.9 (legacy): Couldn't load match `bpf':No such file or directory",
    'iptables-restore v1.8.9 (nf_tables): \nline 7: RULE_APPEND failed (No such file or directory): rule in chain BONDSOCKS',
    'iptables-restore: line 9 failed',
  ]) {
    const bpf = await run(['-m bpf', complaint])
    t.notMatch(bpf.nat, /bpf/)
    t.match(bpf.filter, /REJECT/)
    t.match(bpf.notes, [/^this kernel has no xt_bpf, .*set net\.bridge\.bridge-nf-call-iptables=0$/])
    t.equal(bpf.notes.length, 1)
  }
  const refusing = await run(['-j REJECT', 'Warning: Extension REJECT revision 0 not supported, missing kernel module?'])
  t.match(refusing.nat, /bpf/)
  t.notMatch(refusing.filter, /BONDSOCKS/)
  t.match(refusing.notes, [
    /^this kernel lacks a match or target of iptables \(conntrack, REJECT\): the redirector's port is open/,
  ])
})

t.test('a family that no HAG can reach: not redirected, or refused', async (t) => {
  for (const [on_hag_down, redirected, accepted] of [
    ['direct', false, true],
    ['reject', true, false],
  ] as const) {
    const { network, kernel } = await prepare()
    const { notes } = await network.apply(gateway({ on_hag_down }), { unserved: new Map([[6, 'none has IPv6']]) })
    const { nat4, nat6, filter4, filter6 } = await snapshot(kernel)
    const has = (lines: readonly string[], word: string) => lines.join('\n').includes(word)
    t.same([has(nat6, 'REDIRECT'), has(filter6, 'ACCEPT\n-A BONDSOCKS')], [redirected, accepted], on_hag_down)
    t.same([has(nat4, 'REDIRECT'), has(filter4, 'ACCEPT\n-A BONDSOCKS')], [true, true])
    t.notMatch(nat6.join('\n'), /-A INPUT/, 'what does not arrive is not counted')
    t.ok(notes.includes('none has IPv6'))
  }
})

t.test('a full disk keeps nothing from being removed', async (t) => {
  const { network, kernel } = await prepare()
  await network.apply(gateway())
  // What is saved of it is written anew at the next occasion.
  kernel.removeDevice('lte')
  const write = kernel.writeState.bind(kernel)
  kernel.writeState = async (text) => {
    if (text !== undefined) throw new Error('ENOSPC: no space left on device, write')
    await write(text)
  }
  await network.remove()
  t.same(await network.remove(), [])
  t.equal(kernel.state, undefined)
})

t.test('buffers and limits of others are never lowered', async (t) => {
  const { network, kernel } = await prepare((kernel) => kernel.setSysctl('net/ipv4/tcp_rmem', '4096 1048576 67108864'))
  await kernel.run('ip mptcp limits set subflows 8'.split(' '))
  t.notMatch(lines((await network.plan(gateway())).steps).join('\n'), /tcp_[rw]mem|limits/)
})

t.test('router advertisements are not turned on where they were off', async (t) => {
  const { network } = await prepare((kernel) => {
    kernel.setSysctl('net/ipv6/conf/dsl/accept_ra', '0')
    kernel.setSysctl('net/ipv6/conf/lte/forwarding', '1')
  })
  t.notMatch(lines((await network.apply(gateway())).steps).join('\n'), /(dsl|lte)\.accept_ra/)
  t.same((await network.plan(gateway())).steps, [], 'nor later')
})

t.test('a device that comes just before the end is as without us', async (t) => {
  const { network, kernel, addDevice } = await prepare()
  await network.apply(gateway())
  await addDevice('fibre')
  const acceptRa = async () => (await kernel.readSysctls(['net/ipv6/conf/fibre/accept_ra'])).get('net/ipv6/conf/fibre/accept_ra')
  t.equal(await acceptRa(), '2', 'it has what we gave to the default')
  await network.remove()
  t.equal(await acceptRa(), '1')
})

t.test('a quick pass that fails leaves our jumps where the one before put them', async (t) => {
  const { network, kernel } = await prepare()
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
  const { network, kernel } = await prepare()
  for (let id = 1; id <= 7; id++) await kernel.run(`ip mptcp endpoint add 198.51.100.${id} id ${id} signal`.split(' '))
  const { notes } = await network.apply(gateway())
  t.match(notes, ['no MPTCP endpoint for 10.2.0.2: the kernel holds 8 at most'])
  kernel.addAddress('dsl', '10.1.0.3/24')
  kernel.removeAddress('dsl', '10.1.0.2/24')
  kernel.addAddress('dsl', '10.1.0.4/24')
  const endpoints = lines((await network.apply(gateway())).steps).filter((text) => text.includes('endpoint'))
  t.same(endpoints, ['ip mptcp endpoint delete id 255', 'ip mptcp endpoint add 10.1.0.3 dev dsl id 255 subflow'])
})

t.test('a sysctl below an interface with a dot in its name is written as sysctl(8) reads it', async (t) => {
  const { network, kernel } = await prepare()
  kernel.addDevice('eth0.7')
  kernel.addAddress('eth0.7', '10.7.0.2/24')
  const config = gateway({ wans: [{ name: 'dsl', interface: 'eth0.7', gateway: '10.7.0.1' }] })
  t.ok(lines((await network.plan(config)).steps).includes('sysctl -w net.ipv4.conf.eth0/7.rp_filter=2'))
})

t.test('a state file that is cut off: what is left of it serves, and what is lost is named', async (t) => {
  const wans = ['dsl', 'lte', 'ppp0'].map((name) => ({ name, interface: name, gateway: `10.${name.length}.0.1` }))
  const config = gateway({ wans: [gateway().wans[0], gateway().wans[1], { ...wans[2], gateway: undefined }] })
  const setUp = () =>
    prepare((kernel) => {
      kernel.addDevice('ppp0', ['POINTOPOINT', 'NOARP', 'UP', 'LOWER_UP'])
      kernel.addAddress('ppp0', '10.3.0.2/32')
    })
  const applied = await setUp()
  const before = await snapshot(applied.kernel)
  await applied.network.apply(config)
  const whole = applied.kernel.state ?? ''
  const texts = ['', 'null', '[]', '{"sysctls":7}', '{"sysctls":{"net/ipv4/ip_forward":{}}}', '\0\0\0\0']
  let isNamed = 0
  for (const text of [...texts, ...Array.from({ length: whole.length / 37 }, (_, part) => whole.slice(0, part * 37))]) {
    const { kernel, network } = await setUp()
    await network.apply(config)
    kernel.state = text
    const plan = await new Network(kernel).plan(config)
    t.match(plan.notes.join(), /the state file below \/run\/bondsocks was damaged/, 'the next start says so')
    const error = await new Network(kernel).remove().catch((reason: Error) => reason)
    if (!(error instanceof Error)) throw new Error('it must not say that all is as before')
    const after = await snapshot(kernel)
    for (const [path, value] of Object.entries(after.sysctls)) {
      if (value === before.sysctls[path] || /conf\/all\/accept_redirects|forwarding$|wmem/.test(path)) continue
      t.ok(error.message.includes(`${path.replaceAll('/', '.')}=${value}`), `${path} is named`)
      isNamed++
    }
    t.same({ ...after, sysctls: {}, limits: '' }, { ...before, sysctls: {}, limits: '' }, 'all else is gone')
    if (after.limits !== before.limits) t.match(error.message, /the MPTCP limit of 3 subflows/)
    t.same(await new Network(kernel).remove(), [], 'and the next one has nothing to do')
  }
  t.ok(isNamed > 10)

  const { kernel, network } = await setUp()
  for (const text of ['{', undefined]) {
    await network.apply(config)
    kernel.state = text
    await network.apply(config)
    t.equal(kernel.state, whole, 'who runs knows it by heart')
    kernel.state = text
    await network.remove()
    t.same(await snapshot(kernel), before)
  }
})

t.test('an ip that prints more than we know', async (t) => {
  const { network, kernel } = await prepare()
  const expected = await network.plan(gateway())
  const extra: Record<string, object[]> = {
    'address show': [
      {},
      { ifname: 'odd0', flags: ['UP', 'QUANTUM'], link_type: 'teleport', addr_info: [{ family: 'inet9', local: 'x' }] },
    ],
    'rule show': [{ priority: 7, src: 'all', action: 'teleport', ipproto: 'x' }],
    'route show': [
      {},
      { type: 'teleport', dst: '203.0.113.0/24', dev: 'dsl', protocol: '2', flags: ['quantum'] },
      { dst: '203.0.113.9', encap: 'seg6', gateway: '10.2.0.1', dev: 'lte', protocol: '250', table: '254', type: '1' },
      { dst: '203.0.113.8', nexthops: [{ via: { family: 'inet6', host: 'fe80::9' }, dev: 'lte', weight: 1 }] },
    ],
    'mptcp endpoint': [{ address: '198.51.100.77', id: 77, quantum: true, laminar: true, new: { deep: [1] } }],
  }
  const more = (command: string, json: string) => {
    const known = Object.keys(extra).find((object) => command.startsWith(object))
    if (known === undefined) return `${json}\n`
    const items = (JSON.parse(json || '[]') as object[]).map((item) => ({ ...item, novelty: { a: [1] }, other: null }))
    return `${JSON.stringify([...items, ...(extra[known] ?? [])])}\n`
  }
  t.same(await new Network(printing(kernel, more)).plan(gateway()), expected)
  const silent = (_command: string, json: string) => (json === '[]' ? '' : `${json}\n`)
  t.same(await new Network(printing(kernel, silent)).plan(gateway()), expected, 'nothing where others print []')
  const verbose = (_command: string, json: string) =>
    json.startsWith('[') ? `${JSON.stringify(JSON.parse(json), null, 2)}\n` : `${json}\n`
  t.same(await new Network(printing(kernel, verbose)).plan(gateway()), expected, 'JSON in many lines')
})

t.test('an ip whose output cannot be read: nothing is changed, and that is said', async (t) => {
  const { kernel, network } = await prepare()
  await network.apply(gateway())
  const before = await snapshot(kernel)
  const cases: [object: string, printed: string][] = [
    ['address show', 'Segmentation fault'],
    ['address show', '[{"ifname":"dsl","flags":"UP"}]'],
    ['address show', '{"ifname":"dsl"}'],
    ['rule show', '[{"priority":"5800"}]'],
    ['route show', '[{"dst":"default","dev":7}]'],
    ['route show', '[null]'],
    ['mptcp endpoint', '[{"id":255}]'],
    ['mptcp endpoint', '[{"address":"10.1.0.2","id":255,'],
  ]
  for (const [object, printed] of cases) {
    const garbled = new Network(printing(kernel, (command, json) => `${command.startsWith(object) ? printed : json}\n`))
    await t.rejects(garbled.apply(gateway()), {
      code: 'BAD_OUTPUT',
      exitCode: 1,
      message: /^"ip -j .* show" printed what/,
    })
  }
  t.same(await snapshot(kernel), before)
})
