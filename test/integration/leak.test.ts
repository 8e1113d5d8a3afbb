/** Clients that go away at any moment of the handshake leave no descriptor behind, in the gateway and in the HAG. */
import t from 'tap'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { countDescriptors } from '../support/proc.js'

/** The fewest within 2.5 s: the gateway's probes come and go. */
async function atRest(count: () => { gateway: number; hag: number }) {
  let min = count()
  for (let i = 0; i < 50; i++) {
    await sleep(50)
    const now = count()
    min = { gateway: Math.min(min.gateway, now.gateway), hag: Math.min(min.hag, now.hag) }
  }
  return min
}

t.test('descriptors', { skip: needsRoot }, async (t) => {
  // Shaped: with 30 and 70 ms of round-trip time the handshake takes long enough to go away in each of its steps.
  // Those that wait for clients come and go: see prepared.test.ts.
  const { client, lab, gateway, hag } = await World.run(t, { gateway: { prepared_connections: 0 } })
  const host = lab.addresses.server
  const sockets = () => ({ gateway: countDescriptors(gateway.pid, 'socket'), hag: countDescriptors(hag.pid, 'socket') })
  const pipes = () => countDescriptors(gateway.pid, 'pipe') + countDescriptors(hag.pid, 'pipe')
  t.same(await client.call('many', 'download', 20, { host, port: ports.source, bytes: 50_000 }), [])
  const before = await atRest(sockets)
  const round = async () => {
    const pipesBefore = pipes()
    for (const how of ['rst', 'fin'] as const) {
      const moments = Array.from({ length: 11 }, (_, index) => index * 50)
      for (const port of [ports.source, ports.greeter, ports.aborter, 1]) {
        await Promise.all(moments.map((afterMs) => client.call('vanish', { host, port }, afterMs, how)))
      }
      await settle(sockets, (now) => now.gateway <= before.gateway && now.hag <= before.hag)
      const after = await atRest(sockets)
      const isBack = after.gateway <= before.gateway && after.hag <= before.hag
      t.ok(isBack, `${how}: sockets are back at the start: ${JSON.stringify({ before, after })}`)
    }
    return pipes() - pipesBefore
  }
  // Pipes go back to a pool, which keeps the few that were in use at once; 88 connections that left theirs would show, each time.
  const more = await remeasure(round, (count) => count < 40)
  t.ok(more < 40, `${more} more pipe ends than before`)
  t.match(await client.call('download', { host, port: ports.source, bytes: 100_000 }), { intact: true }, 'and it still works')
})
