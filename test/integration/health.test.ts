/** A WAN that is up but carries nothing: found out, avoided, and used again when it is back. */
import t from 'tap'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('a silent black hole on an idle gateway, and its end', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const host = world.lab.addresses.server
  const get = () => world.client.call('download', { host, port: ports.source, bytes: 10_000 })
  await world.gateway.waitFor(/WAN dsl is up/)
  await world.gateway.waitFor(/WAN lte is up/)
  t.match(await get(), { intact: true, error: undefined })
  await sleep(1500)

  const cutAt = performance.now()
  await world.lab.blackHole('dsl', true)
  await world.gateway.waitFor(/WAN dsl is down: .*no HAG answers over it/)
  t.comment(`detected after ${Math.round(performance.now() - cutAt)} ms`)
  const without = await settle(
    () => world.endpoints(),
    (names) => names.join() === 'lte',
    5000,
  )
  t.same(without, ['lte'], 'no new subflow over it')
  for (let i = 0; i < 3; i++) {
    const fresh = await remeasure(get, ({ seconds }) => seconds < 1)
    t.match(fresh, { intact: true, error: undefined })
    t.ok(fresh.seconds < 1, `a new connection begins on the other WAN: ${Math.round(fresh.seconds * 1000)} ms`)
  }

  await world.lab.blackHole('dsl', false)
  const again = await settle(
    () => world.endpoints(),
    (names) => names.join() === 'dsl,lte',
  )
  t.same(again, ['dsl', 'lte'], 'in use again')
})

t.test('a WAN over which only other traffic still passes, with an upload under way', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const { client, gateway, lab } = world
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  const upload = client.call('halfClose', { host: lab.addresses.server, port: ports.sink, bytes: 30_000_000, back: 0 })
  // About 1 Mbit/s of datagrams for 18 seconds.
  const datagrams = `const socket = require('node:dgram').createSocket('udp4')
    let left = 1800
    const timer = setInterval(() => {
      socket.send(Buffer.alloc(1200), 9, '10.1.0.2')
      if (--left === 0) socket.close(clearInterval(timer))
    }, 10)`
  const others = world.execute('hag')(process.execPath, '-e', datagrams)
  await sleep(4000)
  const cutAt = performance.now()
  await putMiddlebox(lab, 'block-tcp', 'dsl')
  await gateway.waitFor(/WAN dsl is down: no HAG answers over it/)
  const seconds = (performance.now() - cutAt) / 1000
  t.comment(`found after ${seconds.toFixed(1)} s`)
  t.ok(seconds < 10, `its subflows gave it away after ${seconds.toFixed(1)} s`)
  await takeMiddlebox(lab)
  t.match(await upload, { intact: true, error: undefined })
  await others
})

t.test('new connections while a black hole is not detected yet', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const host = world.lab.addresses.server
  await world.gateway.waitFor(/WAN dsl is up/)
  const measure = async () => {
    await settle(
      () => world.endpoints(),
      (names) => names.join() === 'dsl,lte',
    )
    await sleep(500)
    await world.lab.blackHole('dsl', true)
    const fresh = await Promise.all(
      Array.from({ length: 10 }, async (_, index) => {
        await sleep(index * 300)
        return world.client.call('download', { host, port: ports.source, bytes: 10_000 })
      }),
    )
    await world.lab.blackHole('dsl', false)
    for (const one of fresh) t.match(one, { intact: true, error: undefined }, 'all succeed')
    return Math.max(...fresh.map(({ seconds }) => seconds))
  }
  const slowest = await remeasure(measure, (one) => one < 2.5)
  t.ok(slowest < 2.5, `the slowest after ${Math.round(slowest * 1000)} ms`)
})

t.test('what a probe costs, and that an idle metered WAN is left alone', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  await world.gateway.waitFor(/WAN dsl is up/)
  await world.gateway.waitFor(/WAN lte is up/)
  await sleep(2500)
  const measure = async () => {
    const before = await world.lab.wanBytes()
    await sleep(10_000)
    const after = await world.lab.wanBytes()
    return (wan: string) => {
      const [from, to] = [before[wan], after[wan]]
      return from === undefined || to === undefined ? Number.NaN : to.down + to.up - from.down - from.up
    }
  }
  const spent = await remeasure(measure, (one) => one('lte') === 0)
  const each = spent('dsl') / 10
  t.comment(`one probe: ${each} bytes; every 15 minutes ${((each * 4 * 24 * 30) / 1e6).toFixed(1)} MB a month`)
  t.ok(each * 4 * 24 * 30 < 5e6, 'below 5 MB a month on an idle metered WAN')
  t.equal(spent('lte'), 0, 'nothing over lte in 10 s')
})
