import t from 'tap'
import { Rejoin } from '../../src/gateway/wans/rejoin.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'
import { paceOf } from '../support/pace.js'

const dsl = { wan: 'dsl', bind: '10.1.0.2', rate: 0 }
const lte = { wan: 'lte', bind: '10.2.0.2', rate: 0 }

/** `only`: how many connections have only that WAN; `young`: those that have just begun there. */
function start(only: Record<string, number>, paths = [dsl, lte]) {
  const clock = { now: 0 }
  const remade: string[] = []
  const log = memoryLog()
  const state = { only, paths, young: 0 }
  const rejoin = new Rejoin({
    engine: {
      countOnly: async (source, olderThanMs) => (state.only[source] ?? 0) + (olderThanMs === 0 ? state.young : 0),
      stats: () => ({ connections: 1, relaying: 1, pipesInUse: 0, pipesPooled: 0, bytesParked: 0, calmMs: 0 }),
    },
    pace: paceOf(),
    paths: () => state.paths,
    remake: (bind) => remade.push(bind),
    now: () => clock.now,
    emit: toLog(log),
  })
  const look = async (times = 1) => {
    for (let time = 0; time < times; time++) {
      clock.now += 20_000
      await rejoin.look()
    }
  }
  return { state, remade, log, look }
}

t.test('connections that have only one WAN at two looks: the other one joins anew', async (t) => {
  const { remade, log, look } = start({ '10.1.0.2': 7 })
  await look()
  t.same(remade, [], 'it may be about to join')
  await look()
  t.same(remade, ['10.2.0.2'])
  t.same(log.lines, ['info 7 connections have only WAN dsl: WAN lte joins all of them anew'])
})

t.test('where that does not help, it is tried less and less often, until it has', async (t) => {
  const { state, remade, look } = start({ '10.1.0.2': 7 })
  await look(3 * 60)
  t.equal(remade.length, 4, 'at once, after 5, 10 and 20 minutes, within an hour')
  state.only = {}
  await look(200)
  t.equal(remade.length, 4)
  state.only = { '10.2.0.2': 1 }
  await look(2)
  t.equal(remade.at(-1), '10.1.0.2')
})

const left: [string, Record<string, number>, (typeof dsl)[]][] = [
  ['all have both', {}, [dsl, lte]],
  ['some have only the one, some only the other: each would lose its last', { '10.1.0.2': 7, '10.2.0.2': 1 }, [dsl, lte]],
  ['the other one is busy', { '10.1.0.2': 7 }, [dsl, { ...lte, rate: 1e6 }]],
  ['there is no other one', { '10.1.0.2': 7 }, [dsl]],
]
for (const [what, only, paths] of left) {
  t.test(`${what}: nothing is done`, async (t) => {
    const { remade, look } = start(only, paths)
    await look(10)
    t.same(remade, [])
  })
}

t.test('the other one joins once nothing has just begun there', async (t) => {
  const { state, remade, look } = start({ '10.1.0.2': 7 })
  state.young = 1
  await look(5)
  t.same(remade, [])
  state.young = 0
  await look()
  t.same(remade, ['10.2.0.2'])
})

t.test('the busy one joins once it is calm', async (t) => {
  const { state, remade, look } = start({ '10.1.0.2': 7 }, [dsl, { ...lte, rate: 1e6 }])
  await look(5)
  state.paths = [{ ...dsl, rate: 1e6 }, lte]
  await look()
  t.same(remade, ['10.2.0.2'])
})
