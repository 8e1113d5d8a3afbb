/** A HAG that loses its IPv6 and gets it back: what the LAN does by IPv6 works all the time, but for a moment. */
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('a HAG without IPv6', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const { hag2: address, server6: host, server } = world.lab.addresses
  const machine = world.execute('hag2')
  await machine('ip', '-6', 'route', 'delete', 'default')
  await world.startHag({}, 'hag2')
  const gateway = await world.startGateway({ hags: [{ address }] })
  const get = (to = host) => world.client.call('download', { host: to, port: ports.source, bytes: 100_000 })
  const isIntact = (one: Awaited<ReturnType<typeof get>>) => one.intact
  const rules = () => world.execute('cpe')('ip6tables', '-t', 'nat', '-S')
  const isRedirected = (text: string) => text.includes('REDIRECT')

  t.ok(isRedirected(await rules()))
  t.equal(isIntact(await settle(get, isIntact, 10_000)), true, 'some are reset, the next ones work')
  t.notOk(isRedirected(await rules()))
  await gateway.waitFor(/no HAG can reach IPv6 destinations: IPv6 is not redirected/)
  for (let count = 0; count < 3; count++) t.match(await get(), { intact: true, error: undefined })
  t.match(await get(server), { intact: true, error: undefined }, 'IPv4 goes on')

  await machine('ip', '-6', 'route', 'add', 'default', 'via', '2001:db8:b::1')
  t.ok(isRedirected(await settle(rules, isRedirected, 25_000)), 'taken back')
  t.match(gateway.output, /HAG \S+ reaches IPv6 destinations again/)
  t.match(await get(), { intact: true, error: undefined })
  t.same(await gateway.end(), { code: 0, signal: null })
})

t.test(
  'a HAG without IPv6 is known before the first client, where a WAN has a public address to ask for',
  { skip: needsRoot },
  async (t) => {
    const wans = [
      { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1', gateway6: '2001:db8:77::1' },
      { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
    ]
    const world = await World.create(t, { shaped: false, gateway: { wans } })
    const { hag2: address, server6: host, server } = world.lab.addresses
    await world.execute('hag')('ip', 'address', 'add', '2001:db8:77::1/64', 'dev', 'dsl', 'nodad')
    await world.execute('cpe')('ip', 'address', 'add', '2001:db8:77::2/64', 'dev', 'dsl', 'nodad')
    const isRedirected = async () => (await world.execute('cpe')('ip6tables', '-t', 'nat', '-S')).includes('REDIRECT')
    const get = () => world.client.call('download', { host, port: ports.source, bytes: 100_000 })

    const machine = world.execute('hag2')
    const hag = await world.startHag({}, 'hag2')
    const served = await world.startGateway({ hags: [{ address }], drain_seconds: 0 })
    t.ok(await isRedirected(), 'one with IPv6')
    t.match(await get(), { intact: true, error: undefined })
    t.same(await served.end(), { code: 0, signal: null })

    await machine('ip', '-6', 'route', 'delete', 'default')
    const without = await world.startGateway({ hags: [{ address }], drain_seconds: 0 })
    t.notOk(await isRedirected())
    t.match(without.output, /no HAG can reach IPv6 destinations: IPv6 is not redirected/)
    for (let count = 0; count < 3; count++) t.match(await get(), { intact: true, error: undefined }, 'nobody is reset')
    t.same(await without.end(), { code: 0, signal: null })

    const rejecting = await world.startGateway({ hags: [{ address }], drain_seconds: 0, on_hag_down: 'reject' })
    t.match(rejecting.output, /no HAG can reach IPv6 destinations: IPv6 connections are refused/)
    for (let count = 0; count < 3; count++)
      t.match(await get(), { error: 'ECONNREFUSED' }, 'before it is accepted, so that clients try IPv4')
    t.match(await world.client.call('download', { host: server, port: ports.source, bytes: 100_000 }), { intact: true })
    await machine('ip', '-6', 'route', 'add', 'default', 'via', '2001:db8:b::1')
    t.equal((await settle(get, ({ intact }) => intact, 25_000)).intact, true, 'taken back')
    t.notMatch(rejecting.output, /a firewall of this machine/)
    t.same(await rejecting.end(), { code: 0, signal: null })
    await hag.end()
  },
)
