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
