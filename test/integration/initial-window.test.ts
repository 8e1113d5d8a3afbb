/** What a HAG changes on its machine: the window with which its answers begin, by routes of its own that follow the machine's; and MPTCP's limit. */
import t from 'tap'
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
    const rule = /5808:\s+from all ipproto tcp sport 1080 lookup 5808/
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
  t.not(await state(), before)
  await hagHost(process.execPath, 'dist/main.js', 'remove')
  t.equal(await state(), before, '`remove` takes away what a killed one has left')
})

t.test('switched off, or where it is not allowed: the HAG works without', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const off = await world.startHag({ initial_window: 0 })
  t.notMatch(await world.execute('hag')('ip', 'rule', 'show'), /5808/)
  t.same(await off.end(), { code: 0, signal: null })
})
