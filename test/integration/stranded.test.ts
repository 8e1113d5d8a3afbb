/** Connections whose only subflow was over the WAN that falls silent, because no other WAN had joined them: their clients learn it at once. */
import t from 'tap'
import { putMiddlebox } from '../../src/lab/middlebox.js'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const obstacles: Record<string, (world: World) => Promise<unknown>> = {
  'a HAG that lets nobody join': (world) => world.execute('hag')('ip', 'mptcp', 'limits', 'set', 'subflows', '0'),
  'a path that drops what joins': ({ lab }) => putMiddlebox(lab, 'block-join', 'lte'),
}

for (const [what, obstruct] of Object.entries(obstacles))
  t.test(`a silent cut, and ${what}`, { skip: needsRoot }, async (t) => {
    const world = await World.create(t)
    // Without windows to keep it does not look again, and so leaves its limit as we set it.
    await world.startHag({ initial_window: 0 })
    const gateway = await world.startGateway()
    await gateway.waitFor(/WAN dsl is up/)
    await gateway.waitFor(/WAN lte is up/)
    await obstruct(world)
    const { client, lab } = world
    const host = lab.addresses.server
    t.equal(await client.call('hold', { host, port: ports.echo }, 5), 5)
    // Half-closed ones: an upload whose answer is waited for, a server that has ended while its client has not, and a client that is slow to read.
    const upload = client.call('halfClose', { host, port: ports.sink, bytes: 20_000_000, back: 0 })
    const word = client.call('lateWord', { host, port: ports.source, bytes: 10_000, wordAfterMs: 11_500 })
    const slow = client.call('lateWord', { host, port: ports.source, bytes: 200_000, readAfterMs: 13_000, wordAfterMs: 100 })
    // Longer than a join that is not answered counts as one that is on its way.
    await sleep(6500)

    await lab.blackHole('dsl', true)
    await gateway.waitFor(/WAN dsl is down/)
    const downAt = performance.now()
    const alive = await settle(
      () => client.call('alive'),
      (count) => count === 0,
      10_000,
    )
    const ms = performance.now() - downAt
    t.comment(`after ${ms.toFixed(0)} ms`)
    t.equal(alive, 0, 'idle ones are reset')
    t.ok(ms < 2500, `within two seconds, on a machine that does other things too: ${ms.toFixed(0)} ms`)
    t.match(await upload, { error: 'ECONNRESET' }, 'one that has ended its direction is reset')
    t.match(await word, { intact: true, ending: /^(ECONNRESET|EPIPE)$/ }, 'one that has something to say to nobody is reset')
    t.match(await slow, { intact: true }, 'a slow client gets all that the server said before it ended')
    t.match(await client.call('download', { host, port: ports.source, bytes: 20_000 }), { intact: true, error: undefined })

    await lab.blackHole('dsl', false)
  })
