/** Connections that lack a WAN: they would die with the one that they have. */
import t from 'tap'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { ports, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('connections that one WAN has not joined get it at a calm moment', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  await world.startHag()
  const gateway = await world.startGateway()
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  const { client, lab } = world
  await putMiddlebox(lab, 'refuse-join', 'lte')
  t.equal(await client.call('hold', { host: lab.addresses.server, port: ports.echo }, 10), 10)
  await sleep(500)
  await takeMiddlebox(lab)
  await gateway.waitFor(/\d+ connections have only WAN dsl: WAN lte joins all of them anew/, 60_000)
  await sleep(2500)
  await lab.blackHole('dsl', true)
  await gateway.waitFor(/WAN dsl is down/)
  await sleep(2500)
  t.equal(await client.call('ping'), 10)
  await lab.blackHole('dsl', false)
})
