/** Long transfers: no WAN stands still for congestion control's sake, one that comes back or whose path becomes longer is filled, none begins slowly. */
import t from 'tap'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const names = ['dsl', 'lte'] as const

/** Mbit/s of every WAN downwards, `count` times for `ms` each. */
async function rates(world: World, count: number, ms: number): Promise<{ dsl: number; lte: number }[]> {
  const sample = async () => {
    const { dsl, lte } = await world.lab.wanBytes()
    return { at: performance.now(), dsl: dsl?.down ?? 0, lte: lte?.down ?? 0 }
  }
  const found = []
  let before = await sample()
  for (let index = 0; index < count; index++) {
    await sleep(ms)
    const now = await sample()
    const rate = (name: 'dsl' | 'lte') => ((now[name] - before[name]) * 8) / (now.at - before.at) / 1000
    found.push({ dsl: rate('dsl'), lte: rate('lte') })
    before = now
  }
  return found
}

t.test('no WAN stands still', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const target = { host: world.lab.addresses.server, port: ports.source }
  // BBR looks for the smallest round trip every ten seconds.
  const measure = async () => {
    const download = world.client.call('download', { ...target, bytes: 84_000_000 })
    await sleep(1500)
    const all = await rates(world, 40, 300)
    t.match(await download, { intact: true, error: undefined })
    const min = names.map((name) => {
      const mean = all.reduce((sum, one) => sum + one[name], 0) / all.length
      return Math.min(...all.map((one) => one[name])) / mean
    })
    t.comment(
      `the smallest of twelve seconds: ${names.map((name, index) => `${name} ${((min[index] ?? 0) * 100).toFixed(0)} %`).join(', ')}`,
    )
    return Math.min(...min)
  }
  const min = await remeasure(measure, (share) => share > 0.6)
  t.ok(min > 0.6, `${(min * 100).toFixed(0)} % of its mean, at least, in any 300 ms`)
})

t.test('a WAN whose path becomes three times longer', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const target = { host: world.lab.addresses.server, port: ports.source }
  const download = world.client.call('download', { ...target, bytes: 130_000_000 })
  await sleep(3000)
  await world.lab.setLink('lte', { delayMs: 100 })
  await sleep(16_000)
  const last = async () => (await rates(world, 1, 2000))[0]?.lte ?? 0
  const lte = await remeasure(last, (mbit) => mbit > 24)
  t.ok(lte > 24, `${lte.toFixed(1)} of LTE's 30 Mbit/s`)
  t.match(await download, { intact: true, error: undefined })
})

t.test('a WAN that comes back to a running download carries all that it can', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  // Ten segments, as with a HAG that is not ours or not root: what a subflow that joins begins with was what it kept.
  await world.startHag({ initial_window: 0 })
  await world.startGateway()
  const host = world.lab.addresses.server
  const download = world.client.call('download', { host, port: ports.source, bytes: 60_000_000 })
  await sleep(1500)
  await world.lab.carrier('dsl', false)
  await settle(
    () => world.endpoints(),
    (names) => names.join() === 'lte',
  )
  await world.lab.carrier('dsl', true)
  const carried = async () => (await world.lab.wanBytes()).dsl?.down ?? 0
  const start = await carried()
  await settle(carried, (now) => now - start > 500_000)
  const both = async () => (await rates(world, 1, 2000))[0] ?? { dsl: 0, lte: 0 }
  const { dsl, lte } = await remeasure(both, (found) => found.dsl > 17 && found.lte > 20)
  t.ok(dsl > 17, `${dsl.toFixed(1)} of DSL's 20 Mbit/s`)
  t.ok(lte > 20, `${lte.toFixed(1)} of LTE's 30 Mbit/s`)
  t.match(await download, { intact: true, error: undefined })
})

t.test('one upload is as quick as the other, however long its connection has waited', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const measure = async () => {
    const seconds: number[] = []
    while (seconds.length < 5) {
      if (seconds.length > 0) await sleep(5000)
      const sent = await world.client.call('halfClose', {
        host: world.lab.addresses.server,
        port: ports.sink,
        bytes: 6_000_000,
        back: 1,
      })
      t.match(sent, { intact: true, error: undefined })
      seconds.push(sent.seconds)
    }
    t.comment(`6 MB: ${seconds.map((one) => one.toFixed(1)).join(', ')} s`)
    return Math.max(...seconds) / Math.min(...seconds)
  }
  const ratio = await remeasure(measure, (one) => one < 1.5)
  t.ok(ratio < 1.5, `the slowest took ${ratio.toFixed(2)} times as long as the quickest`)
})
