/** Connections to the HAG that are opened in advance: what clients gain, and that they lose nothing when those die unnoticed. */
import t, { type Test } from 'tap'
import { median } from '../../src/lab/measure.js'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const fetchOf = (world: World) => () =>
  world.client.call('download', { host: world.lab.addresses.server, port: ports.source, bytes: 10_000 })

interface Waiting {
  local: string
  port: string
  /** The same on each WAN. */
  connection: string
}

/** The gateway's ports of connections that wait at the HAG, by WAN. */
async function waiting(world: World): Promise<Waiting[]> {
  const text = await world.execute('cpe')('ss', '-Htni', 'state', 'established', 'dport', '= :1080')
  const subflow = /([0-9.]+)(?:%\S+)?:(\d+)\s+\S+:1080\s.*\s.* token:\S+\/(\w+)\(/g
  return [...text.matchAll(subflow)].map(([, local = '', port = '', connection = '']) => ({ local, port, connection }))
}

t.test(
  'a connection by a prepared one takes a round trip less, and has both WANs from its first byte',
  { skip: needsRoot },
  async (t) => {
    const world = await World.create(t)
    await world.startHag()
    const measure = async () => {
      const medians: number[] = []
      for (const prepared_connections of [0, 8]) {
        const gateway = await world.startGateway({ prepared_connections })
        const get = fetchOf(world)
        // The first one is the demand.
        for (let warm = 0; warm < 3; warm++) {
          t.match(await get(), { intact: true })
          await sleep(400)
        }
        const seconds: number[] = []
        for (let index = 0; index < 15; index++) {
          const one = await get()
          t.match(one, { intact: true })
          seconds.push(one.seconds)
          await sleep(150)
        }
        medians.push(median(seconds) * 1000)
        if (prepared_connections > 0) {
          const ready = await settle(
            () => waiting(world),
            (all) => all.some(({ local }) => local.startsWith('10.1.')) && all.some(({ local }) => local.startsWith('10.2.')),
          )
          t.ok(
            ready.some(({ local }) => local.startsWith('10.1.')) && ready.some(({ local }) => local.startsWith('10.2.')),
            'joined',
          )
        }
        t.same(await gateway.end(), { code: 0, signal: null })
        t.same(await waiting(world), [], 'none is left')
      }
      const [without = 0, withThem = 0] = medians
      t.comment(`10 kB: ${without.toFixed(0)} ms without, ${withThem.toFixed(0)} ms with prepared connections`)
      return without - withThem
    }
    const lessMs = await remeasure(measure, (less) => less > 15)
    t.ok(lessMs > 15, 'half a round trip of DSL less, at least')
  },
)

t.test('the best WAN is lost: what was prepared over it serves over the other one', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { gateway: { prepared_connections: 8 } })
  const get = fetchOf(world)
  const wansAre = (...wans: string[]) =>
    settle(
      () => world.endpoints(),
      (names) => names.join() === wans.join(),
    )
  const ratio = await remeasure(
    async () => {
      t.same(await wansAre('dsl', 'lte'), ['dsl', 'lte'])
      await Promise.all(Array.from({ length: 6 }, get))
      await settle(
        () => waiting(world),
        (all) => all.filter(({ local }) => local.startsWith('10.2.')).length >= 6,
      )
      await sleep(1000)
      await world.lab.carrier('dsl', false)
      t.same(await wansAre('lte'), ['lte'])
      const first = await get()
      t.match(first, { intact: true, error: undefined })
      await sleep(1500)
      const usual: number[] = []
      for (let index = 0; index < 5; index++) {
        usual.push((await get()).seconds)
        await sleep(300)
      }
      await world.lab.carrier('dsl', true)
      t.comment(`first: ${(first.seconds * 1000).toFixed(0)} ms, usual: ${(median(usual) * 1000).toFixed(0)} ms`)
      return first.seconds / median(usual)
    },
    (ratio) => ratio < 1.5,
  )
  t.ok(ratio < 1.5, 'one round trip, not two')
  t.same(await world.gateway.end(), { code: 0, signal: null })
})

t.test('an upload over a prepared connection is as quick as over a new one', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  await world.startHag()
  const upload = async () => {
    const target = { host: world.lab.addresses.server, port: ports.sink }
    const one = await world.client.call('halfClose', { ...target, bytes: 8_000_000, back: 100, seed: 3 })
    t.match(one, { intact: true, error: undefined })
    return one.seconds
  }
  const measure = async (prepared_connections: number) => {
    const gateway = await world.startGateway({ prepared_connections })
    await gateway.waitFor(/WAN lte is up/)
    t.match(await fetchOf(world)(), { intact: true })
    await sleep(1000)
    const seconds = await upload()
    t.same(await gateway.end(), { code: 0, signal: null })
    return seconds
  }
  const ratio = await remeasure(
    async () => {
      const [without, withThem] = [await measure(0), await measure(8)]
      t.comment(`8 MB: ${without.toFixed(2)} s without, ${withThem.toFixed(2)} s with prepared connections`)
      return withThem / without
    },
    (ratio) => ratio < 1.4,
  )
  t.ok(ratio < 1.4)
})

/** From now on what is sent over these is lost on the way to the HAG, from it, or both; new connections have other ports. */
async function silence(world: World, those: Waiting[], ...chains: ('INPUT' | 'OUTPUT')[]): Promise<void> {
  for (const { local, port } of those) {
    for (const chain of chains) {
      const [address, which] = chain === 'INPUT' ? ['-s', '--sport'] : ['-d', '--dport']
      await world.execute('hag')('iptables', '-w', '-I', chain, '-p', 'tcp', address, local, which, port, '-j', 'DROP')
    }
  }
}

async function filled(t: Test, world: World): Promise<Waiting[]> {
  for (let index = 0; index < 3; index++) {
    t.match(await fetchOf(world)(), { intact: true, error: undefined })
    await sleep(300)
  }
  return settle(
    () => waiting(world),
    (all) => ['10.1.', '10.2.'].every((wan) => all.filter(({ local }) => local.startsWith(wan)).length >= 2),
  )
}

t.test('prepared connections die unnoticed', { skip: needsRoot }, async (t) => {
  const world = await World.run(t, { gateway: { prepared_connections: 4 } })
  const get = fetchOf(world)
  const warm = async () => {
    for (let index = 0; index < 3; index++) {
      t.match(await get(), { intact: true })
      await sleep(300)
    }
    const ready = await settle(
      () => waiting(world),
      (all) => all.length >= 2,
    )
    t.ok(ready.length >= 2, 'some are ready')
    return ready
  }
  const ready = await warm()
  // As after a restart of the HAG's machine, or of a NAT before it: it knows nothing of them. New ones have other ports.
  const table = world.execute('hag')
  for (const { local, port } of ready) {
    const rule = ['INPUT', '-p', 'tcp', '-s', local, '--sport', port, '-j', 'REJECT', '--reject-with', 'tcp-reset']
    await table('iptables', '-w', '-I', ...rule)
  }
  for (let index = 0; index < 8; index++) {
    const one = await get()
    // Whether it was heard only the first one itself can know.
    t.match(one, index === 0 ? { error: 'ECONNRESET' } : { intact: true, error: undefined }, 'a client')
    t.ok(one.seconds < 3, `within ${one.seconds.toFixed(2)} s`)
  }

  // As where a firewall on the path has lost its state.
  await t.test('silent: a client that has spoken is told soon, and those after it notice nothing', async (t) => {
    await silence(world, await filled(t, world), 'INPUT', 'OUTPUT')
    const first = await get()
    t.comment(`${first.error} after ${first.seconds.toFixed(2)} s`)
    t.match(first, { error: 'ECONNRESET' })
    t.ok(first.seconds < 3, 'not the 15 s that a HAG has for an answer')
    for (let index = 0; index < 4; index++) {
      const one = await get()
      t.match(one, { intact: true, error: undefined }, 'a client')
      t.ok(one.seconds < 1, `within ${one.seconds.toFixed(2)} s`)
    }
  })

  const { server } = world.lab.addresses
  await t.test('silent: a client that waits for the server to speak hears it', async (t) => {
    await silence(world, await filled(t, world), 'INPUT', 'OUTPUT')
    const { received, ms } = await world.client.call('talk', { host: server, port: ports.greeter }, '', 3)
    t.match(received, /^220/)
    t.ok(ms < 3000, `after ${ms.toFixed(0)} ms`)
  })

  await t.test('only what comes from the HAG is lost: the server hears a client once', async (t) => {
    await silence(world, await filled(t, world), 'OUTPUT')
    const { ending, ms } = await world.client.call('talk', { host: server, port: ports.witness }, 'pay ten')
    t.equal(ending, 'ECONNRESET', `after ${ms.toFixed(0)} ms`)
    await sleep(1000)
    t.same(await world.server.call('witnessed'), ['pay ten'])
  })

  await t.test('silent for half a minute: found dead before a client comes', async (t) => {
    const all = await filled(t, world)
    const dead = all[0]?.connection
    const isDead = ({ connection }: Waiting) => connection === dead
    await silence(world, all.filter(isDead), 'INPUT', 'OUTPUT')
    await sleep(36_500)
    const left = await waiting(world)
    t.notOk(left.some(isDead))
    t.ok(
      left.some(({ connection }) => connection !== dead && all.some((one) => one.connection === connection)),
      'others are kept',
    )
    for (let index = 0; index < 4; index++) t.match(await get(), { intact: true, error: undefined }, 'a client')
  })

  await warm()
  await world.hag.end('SIGKILL')
  await world.startHag()
  await world.gateway.waitFor(/HAG \S+ is up/)
  await settle(get, ({ intact }) => intact)
  for (let index = 0; index < 5; index++) t.match(await get(), { intact: true, error: undefined }, 'after a restart of the HAG')
  t.same(await world.gateway.end(), { code: 0, signal: null })
})
