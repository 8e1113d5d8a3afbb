/** What is done and said where a machine is not fit: things that are missing, cannot be written, or print what nobody knows. */
import t from 'tap'
import { Network } from '../../src/network/network.js'
import type { FakeKernel } from '../support/fake-kernel.js'
import { fakeNetwork, gateway, printing, snapshot, texts } from '../support/network-world.js'

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
    const { kernel, network } = await fakeNetwork(change)
    await t.rejects(network.plan(gateway()), { name: 'BondsocksError', code, message, exitCode: 1 }, what)
    await t.rejects(network.apply(gateway()), { code, message }, what)
    t.equal(kernel.state, undefined)
  }
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
      'WAN dsl is down: interface dsl has no default route or DHCP lease to learn the gateway from: if none comes, set "gateway" in the config',
      'lte',
      noGateway,
    ],
  ]
  for (const [what, change, note, used, config = gateway()] of cases) {
    const { network } = await fakeNetwork(change)
    const { notes, wans } = await network.apply(config)
    t.ok(notes.includes(note), `${what}: ${notes.join('; ')}`)
    t.same(
      wans.map(({ name }) => name),
      [used],
      what,
    )
  }
})

t.test('what a kernel or a machine lacks is left out, with a note where a user would miss it', async (t) => {
  const { network, kernel } = await fakeNetwork((kernel) => {
    kernel.missing.add('ip6tables-save')
    kernel.setSysctl('net/mptcp/blackhole_timeout', undefined)
  })
  const { steps, notes } = await network.apply(gateway())
  t.match(notes, [/^IPv6 is not redirected: ip6tables is missing: install the package iptables$/])
  t.notMatch(texts(steps).join('\n'), /ip6tables|blackhole/)
  t.same((await network.plan(gateway())).steps, [])
  t.ok((await network.remove()).length > 0, 'remove does not need it either')
  t.equal(kernel.state, undefined)

  const old = await fakeNetwork((kernel) => {
    for (const name of ['all', 'default', 'br0', 'dsl', 'lte']) kernel.setSysctl(`net/ipv6/conf/${name}/forwarding`, undefined)
    kernel.missing.add('ip6tables-save')
  })
  const without = await old.network.plan(gateway())
  t.match(without.notes, ['IPv6 is left alone: this kernel has none'])
  t.notMatch(texts(without.steps).join('\n'), /ip6tables|ip -6|ipv6/)
})

t.test('sysctls that cannot be written: what goes without them goes, and says what to set', async (t) => {
  const run = async (change: (kernel: FakeKernel) => unknown) => {
    const { network, kernel } = await fakeNetwork(change)
    const before = await snapshot(kernel)
    const plan = await network.apply(gateway())
    t.same(await network.plan(gateway()), { ...plan, steps: [] }, 'what was planned is what is there')
    await network.remove()
    t.same(await snapshot(kernel), before)
    return {
      steps: texts(plan.steps).filter((text) => text.startsWith('sysctl')),
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

  const { network, kernel } = await fakeNetwork((kernel) => {
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
    const { network, kernel } = await fakeNetwork((kernel) => {
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

t.test('an ip that prints more than we know', async (t) => {
  const { network, kernel } = await fakeNetwork()
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
  const { kernel, network } = await fakeNetwork()
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

t.test('an address whose lease was written before it, while a pass is under way', async (t) => {
  const { network, kernel } = await fakeNetwork((kernel) => kernel.removeAddress('lte', '10.2.0.2/24'))
  const run = kernel.run.bind(kernel)
  kernel.run = async (argv, input) => {
    const isLook = input?.includes('address show') && kernel.leases.length === 0
    if (isLook) {
      kernel.leases = [{ address: '10.2.0.2', gateway: '10.2.0.1' }]
      kernel.addAddress('lte', '10.2.0.2/24')
    }
    return run(argv, input)
  }
  const wans = [
    { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' },
    { name: 'lte', interface: 'lte' },
  ]
  const plan = await network.plan(gateway({ wans }))
  t.equal(plan.wans[1]?.address4, '10.2.0.2')
  t.notMatch(plan.notes.join(), 'WAN lte')
})
