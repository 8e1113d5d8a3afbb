/** What a HAG changes on its machine: the window with which its answers begin, by routes of its own that follow the machine's; and MPTCP's limit. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('a HAG begins with 48 segments, follows the main table, and leaves all as it was', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  const hagHost = world.execute('hag')
  const state = async () => {
    const all = ['-4', '-6'].flatMap((family) => [
      hagHost('ip', family, 'rule', 'show'),
      hagHost('ip', family, 'route', 'show', 'table', 'all'),
    ])
    return (await Promise.all([...all, hagHost('ip', 'mptcp', 'limits', 'show')])).join('')
  }
  const copies = async (family = '-4') =>
    (await hagHost('ip', family, 'route', 'show', 'table', '5808').catch(() => '')).trim().split('\n').filter(Boolean)
  const mains = async (family = '-4') => (await hagHost('ip', family, 'route', 'show', 'table', 'main')).trim().split('\n')
  const before = await state()
  const hag = await world.startHag()
  for (const family of ['-4', '-6']) {
    const count = (await mains(family)).length
    const found = await settle(
      () => copies(family),
      (all) => all.length === count,
    )
    t.equal(found.length, count, `${family}: every route`)
    for (const line of found) t.match(line, /initcwnd 48/)
    const rule = /32765:\s+from all iif lo ipproto tcp sport 1080 lookup 5808/
    const rules = await settle(
      () => hagHost('ip', family, 'rule', 'show'),
      (text) => rule.test(text),
    )
    t.match(rules, rule)
  }

  t.match(await hagHost('ip', 'mptcp', 'limits', 'show'), /subflows 8/, 'as many WANs as the kernel can do')
  const gateway = await world.startGateway()
  const host = world.lab.addresses.server
  const running = world.client.call('download', { host, port: ports.source, bytes: 3_000_000 })
  t.match(await running, { intact: true })
  const ready = await settle(
    () => hagHost('ss', '-Htin', 'state', 'established', 'sport', '= :1080'),
    (text) => /cwnd:48\b/.test(text),
  )
  t.match(ready, /cwnd:48\b/, 'those that wait for their first answer have it')

  await hagHost('ip', 'route', 'add', '192.0.2.0/24', 'via', '10.1.0.2')
  const after = await settle(copies, (all) => all.some((line) => line.startsWith('192.0.2.0/24')))
  t.ok(
    after.some((line) => /^192\.0\.2\.0\/24 via 10\.1\.0\.2 .*initcwnd 48/.test(line)),
    'a new route is copied',
  )
  await hagHost('ip', 'route', 'del', '192.0.2.0/24')
  await settle(copies, (all) => !all.some((line) => line.startsWith('192.0.2.0/24')))
  t.notOk(
    (await copies()).some((line) => line.startsWith('192.0.2.0/24')),
    'and one that is deleted goes',
  )
  t.match(await world.client.call('download', { host, port: ports.source, bytes: 100_000 }), { intact: true })

  t.same(await gateway.end(), { code: 0, signal: null })
  t.same(await hag.end(), { code: 0, signal: null })
  t.equal(await state(), before)

  const killed = await world.startHag()
  await settle(copies, (all) => all.length > 0)
  await killed.end('SIGKILL')
  // As an older version of ours had it, and one for another port.
  await hagHost('ip', 'rule', 'add', 'pref', '5808', 'ipproto', 'tcp', 'sport', '1081', 'lookup', '5808')
  t.not(await state(), before)
  await hagHost(process.execPath, 'dist/main.js', 'remove')
  t.equal(await state(), before, '`remove` takes away what a killed one has left')
})

const window = 'iif lo ipproto tcp sport 1080 lookup 5808'

t.test('no packet goes another way, whatever rules there are', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const { hag: address } = world.lab.addresses
  const hagHost = world.execute('hag')
  const ip = (words: string) => hagHost('ip', ...words.split(' '))
  /** Device and table that the kernel chooses for an answer of the HAG, or for what it is told. */
  const route = async (more = `from ${address} ipproto tcp sport 1080`, to = '192.0.2.9') => {
    const text = await ip(`route get ${to} ${more}`)
    return `${/ dev (\S+)/.exec(text)?.[1]} ${/ table (\S+)/.exec(text)?.[1] ?? 'main'}`
  }
  const becomes = (wanted: string, ...what: Parameters<typeof route>) =>
    settle(
      () => route(...what),
      (now) => now === wanted,
    )
  await ip('route add default via 10.1.0.2')
  await ip('route add default via 10.2.0.2 dev lte table 100')

  await t.test('rules that were there before: two uplinks, VPN', async (t) => {
    for (const [what, rules] of [
      ['source rules', [`from ${address} lookup 100`]],
      ['Tailscale', ['pref 5270 lookup 100']],
      ['wg-quick', ['not fwmark 0xca6c lookup 100', 'lookup main suppress_prefixlength 0']],
      ['by port', ['pref 20000 ipproto tcp sport 1080 lookup 100']],
    ] as const) {
      for (const rule of rules) await ip(`rule add ${rule}`)
      const without = await route()
      const hag = await world.startHag()
      await settle(
        () => ip('rule show'),
        (text) => text.includes(window),
      )
      t.match(await ip('rule show'), window, `${what}: it is there`)
      t.equal(await route(), without, `${what}: the same way as without`)
      t.equal(without, 'lte 100')
      await hag.end()
      for (const rule of rules) await ip(`rule del ${rule}`)
      t.equal(await route(), 'dsl main')
    }
  })

  const hag = await world.startHag()
  t.equal(await becomes('dsl 5808'), 'dsl 5808', 'without other rules it has its window')

  await t.test('real answers leave by the uplink of a source rule', async (t) => {
    // The gateway's address is reached over the other uplink.
    await ip('route add 10.1.0.2 via 10.2.0.2 dev lte table 100')
    await ip(`rule add pref 30000 from ${address} lookup 100`)
    const sent = async (device: string) => Number(await hagHost('cat', `/sys/class/net/${device}/statistics/tx_bytes`))
    const before = [await sent('dsl'), await sent('lte')] as const
    const client = await startAgent(t, { argv: (...argv) => world.lab.argv('cpe', argv) })
    const proxy = { host: address, port: 1080 }
    const source = { host: world.lab.addresses.server, port: ports.source }
    t.same(await client.call('socks', proxy, source, 1_000_000), { intact: true })
    t.ok((await sent('lte')) - before[1] > 1_000_000)
    t.ok((await sent('dsl')) - before[0] < 100_000)
    await ip('rule del pref 30000')
  })

  await t.test('rules that come while it runs, in front of it and behind', async (t) => {
    for (const rule of [`from ${address} lookup 100`, `pref 32765 from ${address} lookup 100`, 'pref 9 fwmark 0 lookup 100']) {
      await ip(`rule add ${rule}`)
      t.equal(await becomes('lte 100'), 'lte 100', rule)
      await ip(`rule del ${rule}`)
      t.equal(await becomes('dsl 5808'), 'dsl 5808', `${rule}, deleted`)
    }
    await ip('rule add fwmark 0x7 lookup 100')
    const marked = `from ${address} ipproto tcp sport 1080 mark 7`
    t.equal(await route(marked), 'lte 100')
    t.equal(await route(), 'dsl 5808')
    await ip('rule del fwmark 0x7 lookup 100')
  })

  await t.test('what is forwarded, and what others send, is left alone', async (t) => {
    const forwarded = 'from 198.51.100.2 iif internet ipproto tcp sport 1080'
    t.equal(await route(forwarded), 'dsl main')
    t.equal(await route(`from ${address} ipproto tcp sport 1081`), 'dsl main')
    t.equal(await route(`from ${address} ipproto udp sport 1080`), 'dsl main')
  })

  await t.test('where the main table is not asked next it goes, says so once, and comes back', async (t) => {
    await ip('rule add pref 32766 lookup 100')
    await ip('rule del pref 32766 lookup main')
    t.equal(await becomes('lte 100'), 'lte 100')
    await hag.waitFor(/answers over IPv4 begin with the kernel's initial window: where the rule for the main table should be/)
    t.notMatch(await ip('rule show'), window)
    t.match(await ip('-6 rule show'), window, 'IPv6 keeps its own')
    await ip('rule add pref 32766 lookup main')
    await ip('rule del pref 32766 lookup 100')
    t.equal(await becomes('dsl 5808'), 'dsl 5808')
    await hag.waitFor(/answers over IPv4 begin with 48 segments again/)
  })

  await t.test('two HAGs on one machine', async (t) => {
    const second = await world.startHag({ listen: { address, port: 1081 } })
    const both = async () => (await ip('rule show')).match(/sport 108[01] lookup 5808/g)?.length
    t.equal(await settle(both, (count) => count === 2), 2)
    await ip('route add 192.0.2.128/25 via 10.2.0.2')
    t.equal(await becomes('lte 5808', `from ${address} ipproto tcp sport 1080`, '192.0.2.200'), 'lte 5808')
    t.equal(await becomes('lte 5808', `from ${address} ipproto tcp sport 1081`, '192.0.2.200'), 'lte 5808')
    // What one does must not make the other do something for ever.
    const events = () => hagHost('sh', '-c', 'timeout 1 ip monitor route rule || true')
    t.equal(await settle(events, (text) => text === ''), '')
    t.equal(await both(), 2)
    await second.end()
    t.equal(await becomes('dsl 5808'), 'dsl 5808')
    await ip('route del 192.0.2.128/25')
  })
  await hag.end()
})

t.test('the copy is true, whatever the main table has, or there is none', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const hagHost = world.execute('hag')
  const ip = (words: string) => hagHost('ip', ...words.split(' '))
  await ip('nexthop add id 7 via 10.1.0.2 dev dsl')
  await ip('nexthop add id 8 via 10.2.0.2 dev lte')
  for (const route of [
    'default via 10.1.0.2 metric 100 mtu 1400 advmss 1000',
    'default via 10.2.0.2 metric 200 src 10.2.0.1 rto_min 40ms',
    'append default via 10.1.0.2 dev lte onlink metric 200',
    '192.0.2.0/25 nexthop via 10.1.0.2 weight 2 nexthop via 10.2.0.2',
    '192.0.2.128/25 nhid 7 metric 9',
    '10.8.0.0/16 via 10.1.0.2 initcwnd 20 initrwnd 30 congctl cubic',
    'unreachable 10.9.0.0/16',
    'blackhole 10.10.0.0/16',
    'throw 10.11.0.0/16',
    '10.12.0.0/16 via inet6 fd00:1::2 dev dsl',
    'default via fd00:1::2 expires 600 pref high',
    '2001:db8:77::/48 nexthop via fd00:1::2 weight 2 nexthop via fd00:2::2',
    'unreachable 2001:db8:78::/48 metric 5',
  ]) {
    const family = /:.*\/| fd00.* pref/.test(route) ? '-6' : '-4'
    await ip(`${family} route ${route.startsWith('append') ? '' : 'add '}${route}`)
  }
  const plain = (text: string) => text.replace(/ (proto|expires|initcwnd|nhid) \S+/g, '').replace(/ +$/gm, '')
  const tables = async () => {
    const both = ['-4', '-6'].flatMap((family) =>
      ['main', '5808'].map((table) => ip(`${family} route show table ${table}`).catch(() => '')),
    )
    const [main4, copy4, main6, copy6] = await Promise.all(both)
    return { main: `${main4}${main6}`, copy: `${copy4}${copy6}` }
  }
  const hag = await world.startHag()
  const isCopied = ({ main, copy }: { main: string; copy: string }) => plain(main) === plain(copy)
  const found = await settle(tables, isCopied)
  t.equal(plain(found.copy), plain(found.main))
  t.equal(found.copy.match(/initcwnd 48/g)?.length, found.copy.split('\n').filter((line) => /^\S/.test(line)).length - 1)
  t.match(found.copy, /10\.8\.0\.0\/16 .* initcwnd 20 initrwnd 30/, 'a window that is there stays')

  const many = Array.from({ length: 600 }, (_, index) => `route add 100.64.${index >> 8}.${index & 255} via 10.1.0.2\n`).join('')
  const batch = world.file('many', many)
  await ip(`-batch ${batch}`)
  await hag.waitFor(/answers over IPv4 begin with the kernel's initial window: the main table has \d+ routes/)
  t.notMatch(await ip('rule show'), window)
  await hagHost('sed', '-i', 's/add/del/', batch)
  await ip(`-batch ${batch}`)
  await hag.waitFor(/answers over IPv4 begin with 48 segments again/)
  t.ok(isCopied(await settle(tables, isCopied)))
  await ip('nexthop replace id 7 via 10.2.0.2 dev lte')
  t.ok(isCopied(await settle(tables, isCopied)), 'another next hop of an object')
  // What it changes wakes it once more.
  await sleep(1000)
  await ip('nexthop del id 7')
  const without = await settle(tables, isCopied)
  t.equal(plain(without.copy), plain(without.main), 'with an object its routes go, of which the kernel tells nobody')
  t.notMatch(without.copy, '192.0.2.128/25')

  await ip('nexthop add id 6 via 10.1.0.2 dev dsl')
  await ip('nexthop add id 9 group 6/8')
  await ip('route add 192.0.2.192/26 nhid 9')
  // A group of objects chooses by other rules than next hops in a route.
  await hag.waitFor(/answers over IPv4 begin with the kernel's initial window: .*nexthop/)
  t.notMatch(await ip('rule show'), window)
  t.same(await hag.end(), { code: 0, signal: null })
  t.equal((await tables()).copy, '')
})

t.test('a link that flaps while its routes are copied', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const hagHost = world.execute('hag')
  const hag = await world.startHag()
  await hagHost('ip', 'route', 'add', '192.0.2.0/24', 'via', '10.2.0.2')
  const flap =
    'for wait in .01 .3 .1 .02 .5 .2 .05 .4 .1; do ip link set lte down; sleep $wait; ip link set lte up; sleep $wait; done'
  await hagHost('sh', '-c', flap)
  const state = async () => {
    const show = (table: string) => hagHost('ip', 'route', 'show', 'table', table).catch(() => '')
    const [main, copy, rules] = await Promise.all([show('main'), show('5808'), hagHost('ip', 'rule', 'show')])
    return { main: main.replace(/ (proto|linkdown) \S+/g, ''), copy: copy.replace(/ (proto|initcwnd) \S+/g, ''), rules }
  }
  const isWhole = ({ main, copy, rules }: Awaited<ReturnType<typeof state>>) => main === copy && rules.includes(window)
  const found = await settle(state, isWhole)
  t.equal(found.copy, found.main, 'in the end the copy is whole')
  t.match(found.rules, window, 'and used')
  t.same(await hag.end(), { code: 0, signal: null })
})

t.test('switched off, or where it is not allowed: the HAG works without', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const off = await world.startHag({ initial_window: 0 })
  t.notMatch(await world.execute('hag')('ip', 'rule', 'show'), /5808/)
  t.same(await off.end(), { code: 0, signal: null })
})
