/** Connections that are not bonded although their WANs work: that is said, with what is known of the cause, and so is its end. */
import t from 'tap'
import { joinsBetween, lackByCounters } from '../../src/gateway/wans/bundle.js'
import { parseJoins } from '../../src/gateway/wans/bundle-watch.js'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { ports, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'
import { bondsocks } from '../support/process.js'

t.test('joins that get lost', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { gateway: { prepared_connections: 0 } })
  const { gateway, lab, client } = world
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  await putMiddlebox(lab, 'block-join', 'lte')
  const download = client.call('download', { host: lab.addresses.server, port: ports.source, bytes: 45_000_000 })
  await gateway.waitFor(/WAN lte is not in the bundle: 0 of 1 connections use it; what would join over it gets no answer/, 18_000)
  const { stdout } = await outcome(lab.argv('cpe', bondsocks('status')))
  t.match(stdout, /\nnot bonded over lte\n(?:.|\n)*lte \(IPv4\): 0 of 1, .*: what would join over it gets no answer/)
  await takeMiddlebox(lab)
  t.match(await download, { intact: true, error: undefined })
})

t.test('joins that are refused, or lose their option', { skip: needsRoot }, async (t) => {
  // Without windows to keep the HAG does not look again, and so leaves its limit as we set it.
  const world = await World.run(t, { gateway: { prepared_connections: 0 }, hag: { initial_window: 0 } })
  const { gateway, lab, client } = world
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  const source = { host: lab.addresses.server, port: ports.source }
  const count = async () => parseJoins(await world.execute('cpe')('cat', '/proc/net/netstat'))
  const cause = async () => {
    const before = await count()
    t.match(await client.call('download', { ...source, bytes: 2_000_000 }), { intact: true, error: undefined })
    const after = await count()
    return before && after && lackByCounters(joinsBetween(before, after))
  }
  const limit = (subflows: number) => world.execute('hag')('ip', 'mptcp', 'limits', 'set', 'subflows', `${subflows}`)
  await limit(0)
  t.equal(await cause(), 'closed')
  await limit(8)
  await putMiddlebox(lab, 'refuse-join', 'lte')
  // Before Linux 6.12 the kernel does not count joins that it tries.
  t.equal(await cause(), (await count())?.tried === undefined ? 'unknown' : 'reset')
  await takeMiddlebox(lab)
  await putMiddlebox(lab, 'strip-join', 'lte')
  t.equal(await cause(), 'stripped')
  await client.call('stall', source, 1, 2_000_000, 500_000)
  await gateway.waitFor(/WAN lte is not in the bundle: 0 of 1 .* something on its path removes the option MP_JOIN/, 18_000)
  t.match(await client.call('readOn'), { intact: 1 })
})
