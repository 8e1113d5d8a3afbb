/** Several HAGs on one machine, and one for both families. */
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { start } from '../support/process.js'

t.test('two HAGs on one machine: what they share goes with the last one', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const hagHost = world.execute('hag')
  const state = async () => {
    const words = ['-4 rule show', '-4 route show table all', '-6 rule show', '-6 route show table all', 'mptcp limits show']
    return (await Promise.all(words.map((one) => hagHost('ip', ...one.split(' '))))).join('')
  }
  const { hag, hag6, server } = world.lab.addresses
  const before = await state()
  // One for each family, after the copy of its routes.
  const isSetUp = (text: string) => text.split('sport 1080 lookup 5808').length === 3 && /subflows 8/.test(text)
  const [first, second] = [
    await world.startHag({ listen: { address: hag } }),
    await world.startHag({ listen: { address: hag6 } }),
  ]
  const both = await settle(state, isSetUp)
  t.ok(isSetUp(both))
  for (const one of [first, second]) t.notMatch(one.output, /initial window|stays as it is/)
  t.same(await first.end(), { code: 0, signal: null })
  t.equal(await state(), both, 'the first one goes, and leaves all to the other')
  t.same(await second.end(), { code: 0, signal: null })
  t.equal(await state(), before)

  // One for both families.
  const clients = ['10.0.0.0/8', '2001:db8::/32', 'fc00::/7']
  const every = await world.startHag({ clients, listen: { address: '::' } })
  const list = await world.startHag({ clients, listen: { address: [hag, hag6], port: 1081 }, initial_window: 0 })
  for (const port of [1080, 1081]) {
    for (const address of [hag, `[${hag6}]`]) {
      const url = `http://${server}:${ports.http}/4/1000`
      const size = await world.execute('cpe')('sh', '-c', `curl -sS -m 5 --socks5 ${address}:${port} ${url} | wc -c`)
      t.equal(size.trim(), '1000', `${address}:${port}`)
    }
  }
  await list.end()
  await every.end()
  t.equal(await state(), before)
})

t.test('of two HAGs on one machine one is killed: the other one keeps what it uses', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const hagHost = world.execute('hag')
  const { hag: address } = world.lab.addresses
  const rules = async () =>
    [...(await hagHost('ip', 'rule')).matchAll(/ sport (\d+) lookup 5808/g)].map(([, port]) => port).sort()
  const table = () => hagHost('ip', 'route', 'show', 'table', '5808')
  const stays = await world.startHag({ listen: { address, port: 1081 } })
  const killed = await world.startHag({ listen: { address } })
  const both = (ports: unknown[]) => ports.join() === '1080,1081'
  t.same(await settle(rules, both), ['1080', '1081'])
  const copy = await table()
  t.match(copy, /initcwnd/)
  const monitor = start(t, world.lab.argv('hag', ['ip', 'monitor', 'route', 'rule']))
  await killed.end('SIGKILL')
  await monitor.waitFor(/^Deleted .* sport 1080 lookup 5808/m)
  await settle(
    () => killed.output,
    (text) => text.includes('ended unexpectedly'),
  )
  t.same(await rules(), ['1081'])
  t.equal(await table(), copy)
  t.notMatch(monitor.output, /^Deleted .* table 5808/m)
  await stays.end('SIGKILL')
  t.equal(await settle(table, (text) => text === ''), '', 'the last one leaves nothing')
})
