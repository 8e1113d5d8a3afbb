/** A gateway that nobody uses sleeps, and finds out all the same that a WAN has died. */
import t from 'tap'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { wakeUps } from '../support/proc.js'

/** In the first ten seconds it is as awake as with clients, and then looks less and less often at what no monitor reports. */
const settledMs = 12_000
const seconds = 10

t.test('at rest', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { hag: { max_connections: 20_000 }, gateway: { max_connections: 20_000 } })
  const { client, gateway, hag, lab } = world
  for (const { name } of lab.wans) await gateway.waitFor(new RegExp(`WAN ${name} is up`))
  const host = lab.addresses.server
  const count = async ({ pid } = gateway) => {
    const before = wakeUps(pid)
    await sleep(seconds * 1000)
    return (wakeUps(pid) - before) / seconds
  }
  await t.test('it is woken once a second for a WAN that is not metered, and by nothing else', async (t) => {
    await sleep(settledMs)
    // In between may be a look at everything, with its programs.
    const [each, hags] = await Promise.all([remeasure(count, (found) => found < 2.5), count(hag)])
    t.comment(`${each} and on the HAG ${hags} wake-ups a second`)
    t.ok(each < 2.5, `${each} wake-ups a second`)
    t.ok(hags < 1, `${hags} wake-ups a second on the HAG`)
  })
  await t.test('with idle connections it is no other', async (t) => {
    t.equal(await client.call('hold', { host, port: ports.echo }, 1000), 1000)
    await sleep(settledMs)
    const each = await remeasure(count, (found) => found < 3)
    t.comment(`${each} wake-ups a second`)
    t.ok(each < 3, `${each} wake-ups a second`)
  })
  await t.test('a WAN that is silent is found within two seconds', async (t) => {
    const cutAt = performance.now()
    await lab.blackHole('dsl', true)
    await gateway.waitFor(/WAN dsl is down: no HAG answers over it/)
    const ms = performance.now() - cutAt
    t.comment(`after ${Math.round(ms)} ms`)
    t.ok(ms < 2200, `after ${Math.round(ms)} ms`)
    await lab.blackHole('dsl', false)
    t.same(
      await settle(
        () => world.endpoints(),
        (names) => names.join() === 'dsl,lte',
      ),
      ['dsl', 'lte'],
    )
  })
  await t.test('a HAG that ends is found at once', async (t) => {
    await sleep(settledMs)
    const endedAt = performance.now()
    await hag.end('SIGKILL')
    await gateway.waitFor(/HAG \S+ is down: connection refused/)
    const ms = performance.now() - endedAt
    t.comment(`after ${Math.round(ms)} ms`)
    t.ok(ms < 1500, `after ${Math.round(ms)} ms`)
  })
})
