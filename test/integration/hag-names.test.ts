/** HAGs by name: a name server that fails, answers, and answers something else while the gateway runs. */
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('a name server that fails at the start, and a fleet that moves', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { topology: 'hybrid' })
  const { hag: first, hag2: second, server: host } = world.lab.addresses
  const names = await world.dns('fail')
  const hags = [await world.startHag(), await world.startHag({}, 'hag2')]
  const name = '_bondsocks._tcp.example.net'
  const gateway = await world.startGateway({ hags: [{ name }] })
  const get = () => world.client.call('download', { host, port: ports.source, bytes: 10_000 })
  t.match(gateway.output, new RegExp(`the HAG ${name} cannot be looked up`))
  t.match(gateway.output, /no HAG can be reached: connections go direct.*no name of a HAG can be looked up/)
  t.match(await get(), { intact: true, error: undefined }, 'direct meanwhile')

  const fleet = [
    { priority: 10, weight: 1, port: 1080, target: 'a.example.net' },
    { priority: 20, weight: 1, port: 1080, target: 'b.example.net' },
  ]
  const zone = { [name]: { SRV: fleet }, 'a.example.net': { A: [first] }, 'b.example.net': { A: [second] } }
  await names.call('dnsZone', zone)
  await gateway.waitFor(new RegExp(`HAG ${first.replaceAll('.', '\\.')}:1080 is up`), 20_000)
  await gateway.waitFor(/can be looked up again/)
  t.match(await get(), { intact: true, error: undefined })

  await names.call('dnsZone', 'silent')
  await hags[0]?.end('SIGKILL')
  t.match(await get(), { intact: true, error: undefined }, 'the next one of the fleet, while the name server is silent')
  await hags[1]?.end('SIGKILL')
  await gateway.waitFor(new RegExp(`HAG ${second.replaceAll('.', '\\.')}:1080 is down`), 20_000)
  await names.call('dnsZone', { [name]: { SRV: fleet.slice(1) }, 'b.example.net': { A: [second] } })
  await gateway.waitFor(/HAGs changed/, 30_000)
  await world.startHag({}, 'hag2')
  const back = await settle(
    () => gateway.output.match(new RegExp(`HAG ${second.replaceAll('.', '\\.')}:1080 answers again`)) !== null,
    (is) => is,
    30_000,
  )
  t.ok(back, 'what the name leads to now is used')
  t.match(await get(), { intact: true, error: undefined })
})
