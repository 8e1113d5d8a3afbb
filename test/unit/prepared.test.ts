import t, { type Test } from 'tap'
import type { Probe } from '../../src/engine/contract.js'
import { PreparedConnections } from '../../src/gateway/connections/prepared.js'
import type { HagPath } from '../../src/gateway/model.js'
import { FakeEngine } from '../support/fake-engine.js'
import { settle } from '../support/far-side.js'
import { memoryLog } from '../support/memory-log.js'

const hag = { address: '203.0.113.3', port: 1080, username: 'me', password: 'pw' }
const pathOver = (wan: string, bind: string, more: Partial<HagPath> = {}): HagPath => ({
  hag,
  wan,
  bind,
  protocol: 'mptcp',
  pipelined: true,
  patienceMs: 150,
  minRttMs: 30,
  ...more,
})
const dsl = pathOver('dsl', '10.1.0.2')
const lte = pathOver('lte', '10.2.0.2', { minRttMs: 70 })

function start(
  t: Test,
  {
    max = 16,
    paths = [dsl, lte],
    works = (): boolean => true,
    hangs = (_: Probe): boolean => false,
    endedMs = 0,
    protocol = 'mptcp' as 'mptcp' | 'tcp',
  } = {},
) {
  const asked: Probe[] = []
  const lives: number[] = []
  const fallbacks: string[] = []
  const engine = new FakeEngine(
    { onEvents: () => {} },
    {
      probe(probe) {
        asked.push(probe)
        const local = { address: '10.1.0.2', port: 1 }
        if (works()) return { ok: true, local, protocol, connectMs: 30 }
        return { ok: false, stage: 'connect', failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }
      },
    },
  )
  const far = { endedMs }
  const clock = { now: 1_000_000 }
  const state = { paths: paths as readonly HagPath[] }
  const pool = new PreparedConnections({
    engine: {
      prepare: (probe) => (hangs(probe) ? new Promise(() => {}) : engine.prepare(probe)),
      keepPrepared(probes, max, maxAgeMs) {
        lives.push(maxAgeMs)
        const kept = engine.keepPrepared(probes, max, maxAgeMs)
        return far.endedMs > 0 ? { ...kept, endedMs: far.endedMs } : kept
      },
    },
    log: memoryLog(),
    max,
    paths: () => state.paths,
    report: (fact) => fact.type === 'mptcp-fell-back' && fallbacks.push(fact.bind),
    now: () => clock.now,
  })
  const end = new AbortController()
  const running = pool.run(end.signal)
  t.teardown(async () => {
    end.abort()
    await running
    if (engine.prepared.length > 0) throw new Error('some are left')
  })
  /** A client comes, and takes one that is ready. */
  const serve = () => {
    pool.demanded(1)
    engine.prepared.shift()
  }
  const tend = async () => {
    pool.tend()
    await settle()
  }
  const prepared = () => engine.prepared.map(({ probe }) => probe.bind)
  return { pool, serve, engine, asked, lives, fallbacks, far, clock, state, tend, prepared }
}

t.test('a HAG that was started anew is not thought impatient for long; one that ends them again is', async (t) => {
  const { pool, asked, far, clock, tend } = start(t)
  pool.demanded(1)
  await tend()
  const isPreparing = async () => {
    const before = asked.length
    for (let i = 0; i < 20; i++) pool.demanded(1)
    await tend()
    return asked.length > before
  }
  for (const holdsMs of [30_000, 600_000]) {
    far.endedMs = 1500
    await tend()
    far.endedMs = 0
    clock.now += holdsMs - 1000
    t.notOk(await isPreparing())
    clock.now += 2000
    t.ok(await isPreparing())
  }
})

t.test('none before the first client, and two after it, over the best path', async (t) => {
  const { pool, asked, prepared } = start(t)
  await settle()
  t.same(prepared(), [])
  t.equal(pool.serves(dsl), true)
  pool.demanded(1)
  await settle()
  t.same(prepared(), ['10.1.0.2', '10.1.0.2'])
  t.match(asked[0], { remote: { address: hag.address, port: 1080 }, username: 'me', password: 'pw', protocol: 'mptcp' })
})

t.test('as many as came within a second, up to the most, and fewer when that is long ago', async (t) => {
  const { serve, clock, engine, tend, prepared } = start(t, { max: 8 })
  for (let client = 0; client < 5; client++) serve()
  await settle()
  t.equal(prepared().length, 5)
  for (let client = 0; client < 20; client++) serve()
  await settle()
  t.equal(prepared().length, 8)
  clock.now += 11_000
  engine.prepared.splice(0)
  await tend()
  t.equal(prepared().length, 2)
})

t.test('one that is used is replaced at once', async (t) => {
  const { serve, prepared } = start(t)
  serve()
  await settle()
  serve()
  await settle()
  t.equal(prepared().length, 2)
})

t.test('clients that go away before they took one: no more are kept for that', async (t) => {
  const { pool, tend, prepared } = start(t)
  pool.demanded(1)
  await settle()
  pool.demanded(1)
  await settle()
  await tend()
  t.equal(prepared().length, 2)
})

t.test('nobody comes for a minute: none is kept', async (t) => {
  const { pool, clock, tend, prepared } = start(t)
  pool.demanded(1)
  await settle()
  clock.now += 59_000
  await tend()
  t.equal(prepared().length, 2)
  clock.now += 2000
  await tend()
  t.same(prepared(), [])
})

t.test('only the best path is served; another best path, or none, changes what is kept', async (t) => {
  const { pool, state, tend, prepared } = start(t)
  t.equal(pool.serves(lte), false)
  t.equal(pool.serves({ ...dsl, hag: undefined } as never), false)
  t.equal(pool.serves(dsl), true)
  pool.demanded(1)
  await settle()
  state.paths = [lte]
  await tend()
  t.same(prepared(), ['10.2.0.2', '10.2.0.2'], 'the WAN of the others is lost')
  state.paths = []
  await tend()
  t.same(prepared(), [], 'and so is the HAG')
  t.equal(pool.serves(lte), false)
})

t.test('those that hang on a WAN that has died do not count for the next one', async (t) => {
  let isDead = false
  const { pool, clock, state, tend, prepared } = start(t, { hangs: ({ bind }) => isDead && bind === dsl.bind })
  for (let client = 0; client < 5; client++) pool.demanded(1)
  await settle()
  isDead = true
  clock.now += 1000
  for (let client = 0; client < 5; client++) pool.demanded(1)
  state.paths = [lte]
  await tend()
  t.equal(prepared().filter((bind) => bind === lte.bind).length, 5)
})

t.test('switched off, or to a HAG that is near: none', async (t) => {
  const off = start(t, { max: 0 })
  t.equal(off.pool.serves(dsl), false)
  const near = start(t, { paths: [pathOver('lan', '10.1.0.2', { minRttMs: 1 })] })
  t.equal(near.pool.serves(near.state.paths[0] as HagPath), false)
  await settle()
  t.same([...off.asked, ...near.asked], [])
})

t.test('a HAG that cannot be reached is not asked again and again', async (t) => {
  let works = false
  const { pool, clock, asked, tend, prepared } = start(t, { works: () => works })
  for (let client = 0; client < 10; client++) {
    pool.demanded(1)
    await settle()
  }
  t.equal(asked.length, 2)
  works = true
  clock.now += 2500
  await tend()
  t.ok(prepared().length >= 2)
})

t.test('what was to be MPTCP and is not speaks against its WAN', async (t) => {
  const { pool, fallbacks } = start(t, { protocol: 'tcp' })
  pool.demanded(1)
  await settle()
  t.same(fallbacks, ['10.1.0.2', '10.1.0.2'])
})

t.test('a HAG that ends those that only wait: they are renewed sooner, and given up where that is too soon', async (t) => {
  const { pool, lives, far, asked, clock, tend } = start(t)
  pool.demanded(1)
  await settle()
  t.equal(lives.at(-1), 90_000)
  far.endedMs = 30_000
  await tend()
  far.endedMs = 0
  await tend()
  t.equal(lives.at(-1), 21_000)
  far.endedMs = 1500
  await tend()
  const before = asked.length
  pool.demanded(1)
  await tend()
  t.equal(asked.length, before)
  far.endedMs = 0
  clock.now += 600_000
  pool.demanded(1)
  await tend()
  t.ok(asked.length > before, 'not for ever: it may have been a restart')
})
