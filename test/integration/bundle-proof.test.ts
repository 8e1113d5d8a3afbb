/** Connections that are not bonded although their WANs work: that is said, with what is known of the cause, and so is its end. */
import t from 'tap'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { ports, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('joins that get lost', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { gateway: { prepared_connections: 0 } })
  const { gateway, lab, client } = world
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  await putMiddlebox(lab, 'block-join', 'lte')
  const download = client.call('download', { host: lab.addresses.server, port: ports.source, bytes: 45_000_000 })
  await gateway.waitFor(/WAN lte is not in the bundle: 0 of 1 connections use it; what would join over it gets no answer/, 18_000)
  await takeMiddlebox(lab)
  t.match(await download, { intact: true, error: undefined })
})
