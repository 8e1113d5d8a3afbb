/** Connections that lack a WAN: they would die with the one that they have. And those that lack both for a while. */
import t from 'tap'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test(
  'connections that one WAN has not joined get it at a calm moment, and live through a loss of both',
  { skip: needsRoot },
  async (t) => {
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
    const returnOfDsl = async () => {
      const mark = gateway.output.length
      await lab.blackHole('dsl', false)
      t.ok(await settle(() => /WAN dsl is up/.test(gateway.output.slice(mark)), Boolean))
    }
    await returnOfDsl()
    await sleep(2500)

    const mark = gateway.output.length
    await lab.blackHole('dsl', true)
    await sleep(150)
    await lab.blackHole('lte', true)
    // By then what was asked in vain again and again waits for longer.
    await sleep(10_000)
    await returnOfDsl()
    await sleep(2500)
    t.equal(await client.call('ping'), 10, 'the one that is back carries all')
    t.notMatch(gateway.output.slice(mark), /had no way left/)
    await lab.blackHole('lte', false)
  },
)
