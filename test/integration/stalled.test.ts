/** Clients that stop reading: they cost no processor time while they do, and get the rest as soon as they read on. */
import t from 'tap'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { sleeps } from '../support/proc.js'

t.test('stalled downloads wake nobody', { skip: needsRoot }, async (t) => {
  const { client, lab, hag } = await World.run(t)
  const count = 8
  const bytes = 20_000_000
  const wakeUps = async () => {
    const before = sleeps(hag.pid)
    await sleep(2000)
    return (sleeps(hag.pid) - before) / 2
  }
  await client.call('stall', { host: lab.addresses.server, port: ports.source }, count, bytes, 500_000)
  // What is on its way comes to a stop first. Asked every 64 ms, each would wake a worker 15 times a second.
  const each = await settle(wakeUps, (perSecond) => perSecond < 4 * count, 90_000)
  t.ok(each < 4 * count, `${each.toFixed(0)} wake-ups a second`)
  const { intact, seconds } = await client.call('readOn')
  t.equal(intact, count)
  t.comment(`the rest of ${(count * bytes) / 1e6} MB took ${seconds.toFixed(1)} s`)
})
