import t from 'tap'
import type { DialSpec, EngineEvent } from '../../src/engine/contract.js'
import { DialRaces } from '../../src/engine/race.js'
import { FakeEngine } from '../support/fake-engine.js'
import { type Answer, failure, settle } from '../support/far-side.js'
import { settle as eventually, sleep } from '../support/wait.js'

type Failed = Extract<EngineEvent, { type: 'failed' }>
const connectTimeoutMs = 1000
const specTo = (address: string): DialSpec => ({ protocol: 'tcp', remote: { address, port: 443 }, connectTimeoutMs })

function setUp(answers: Record<string, Answer> = {}) {
  const engine: FakeEngine = new FakeEngine(
    {
      onEvents: (events) => {
        for (const event of events)
          if (event.type === 'opened' || event.type === 'failed' || event.type === 'closed') attempts.settle(event)
      },
    },
    { answer: (spec) => answers[spec.remote.address] ?? 'silence' },
  )
  const attempts: DialRaces = new DialRaces(engine)
  const failures: string[] = []
  const lost: string[] = []
  const race = (connection: number, choices: string[], { patienceMs = 10_000, final = (_: Failed): boolean => false } = {}) =>
    attempts.race(connection, choices, {
      dialSpec: specTo,
      patienceMs: () => patienceMs,
      failed: (choice, failed) => {
        failures.push(choice)
        return final(failed)
      },
      lostRace: (choice) => lost.push(choice),
    })
  const connection = engine.accept()
  attempts.begin(connection)
  const tried = () => engine.opens.map(({ spec }) => spec.remote.address)
  /** All that were tried, once there are so many. */
  const triedOnce = (count: number) => eventually(tried, ({ length }) => length >= count)
  return { engine, attempts, connection, race, failures, lost, tried, triedOnce }
}

t.test('a client that left while the session awaited something else is remembered', async (t) => {
  const { engine, connection, race } = setUp()
  engine.leave(connection, 'client-reset')
  await settle()
  t.match(await race(connection, ['a']), { outcome: { type: 'closed', reason: 'client-reset' } })
  t.same(engine.opens, [])
})

t.test('a connection whose session has ended is forgotten', async (t) => {
  const { engine, attempts, connection, race } = setUp({ a: 'opened' })
  t.match(await race(connection, ['a']), { outcome: { type: 'opened' }, choice: 'a' })
  attempts.end(connection)
  engine.leave(connection)
  await settle()
  let isSettled = false
  void race(connection, ['a']).then(() => {
    isSettled = true
  })
  await settle()
  t.equal(isSettled, false, 'nothing of its end is kept')
})

t.test('a session that ends in the middle of a race opens nothing more', async (t) => {
  const { attempts, connection, race, tried } = setUp()
  void race(connection, ['a', 'b'], { patienceMs: 10 })
  attempts.end(connection)
  await sleep(100)
  t.same(tried(), ['a'])
})

t.test('a path that fails is followed by the next one at once, and every failure is told', async (t) => {
  const { connection, race, failures, tried } = setUp({
    a: failure('connect', 'ECONNREFUSED'),
    b: failure('greeting', 'EPROTO'),
    c: 'opened',
  })
  t.match(await race(connection, ['a', 'b', 'c', 'd']), { outcome: { type: 'opened' }, choice: 'c' })
  t.same(failures, ['a', 'b'])
  t.same(tried(), ['a', 'b', 'c'])
})

t.test('a silent path is joined by the next one when patience ends; the first that gets through is it', async (t) => {
  const { engine, connection, race, failures, lost, tried, triedOnce } = setUp()
  const raced = race(connection, ['a', 'b', 'c'], { patienceMs: 20 })
  t.same(tried(), ['a'])
  t.same(await triedOnce(3), ['a', 'b', 'c'])
  engine.answer(connection, 'opened', 1)
  t.match(await raced, { outcome: { type: 'opened' }, choice: 'b' })
  t.same(failures, [])
  t.same(lost, ['a'])
})

t.test('a failure while others are under way ends nothing; the last one does', async (t) => {
  const { engine, connection, race, failures, triedOnce } = setUp()
  const raced = race(connection, ['a', 'b'], { patienceMs: 1 })
  await triedOnce(2)
  engine.answer(connection, failure('connect', 'ETIMEDOUT'), 0)
  await settle()
  t.same(failures, ['a'])
  engine.answer(connection, failure('connect', 'ENETDOWN'), 1)
  t.match(await raced, { outcome: { type: 'failed', failure: { code: 'ENETDOWN' } } })
})

t.test('the winner fails with its request: those that it had beaten get another chance, once', async (t) => {
  const { engine, connection, race, tried, triedOnce } = setUp()
  const raced = race(connection, ['a', 'b'], { patienceMs: 1 })
  await triedOnce(2)
  engine.answer(connection, failure('request', 'ETIMEDOUT'), 0)
  await settle()
  t.same(tried(), ['a', 'b', 'b'])
  engine.answer(connection, failure('request', 'ETIMEDOUT'), 1)
  t.match(await raced, { outcome: { type: 'failed' } })
  t.same(tried(), ['a', 'b', 'b'])
})

t.test('those that had no chance to join while another went on alone get theirs when it fails', async (t) => {
  const { engine, connection, race, failures, tried, triedOnce } = setUp()
  const raced = race(connection, ['a', 'b', 'c'], { patienceMs: 10 })
  engine.commit(connection, 0)
  await sleep(100)
  t.same(tried(), ['a'], 'nothing is opened beside it')
  engine.answer(connection, failure('request', 'ECONNRESET'), 0)
  t.same(await triedOnce(3), ['a', 'b', 'c'])
  engine.answer(connection, failure('request', 'ECONNRESET'), 2)
  await settle()
  t.same(tried(), ['a', 'b', 'c', 'b'])
  engine.answer(connection, failure('request', 'ECONNRESET'), 1)
  t.match(await raced, { outcome: { type: 'failed', attempt: 1 } })
  t.same(failures, ['a', 'c', 'b'], 'each failure once')
})

t.test('an attempt whose `open` crossed the failure of the one before may win', async (t) => {
  const { engine, connection, race, tried } = setUp()
  const raced = race(connection, ['a', 'b'], { patienceMs: 30 })
  await sleep(25)
  // The engine's event is on its way when patience ends.
  engine.answer(connection, failure('connect', 'ETIMEDOUT'), 0)
  for (const until = performance.now() + 20; performance.now() < until; );
  await settle()
  t.same(tried(), ['a', 'b'])
  engine.answer(connection, 'opened', 1)
  t.match(await raced, { outcome: { type: 'opened', attempt: 1 }, choice: 'b' })
})

t.test('a path without a descriptor for racing waits for its turn, and nothing is learned of it', async (t) => {
  const { engine, connection, race, failures, triedOnce } = setUp()
  const refuse = (attempt: number) => engine.answer(connection, failure('connect', 'EMFILE'), attempt)
  const raced = race(connection, ['a', 'b'], { patienceMs: 20 })
  t.same(await triedOnce(2), ['a', 'b'])
  refuse(1)
  t.same(await triedOnce(3), ['a', 'b', 'b'], 'when patience has ended once more')
  t.same(failures, [])
  refuse(1)
  await triedOnce(4)
  engine.answer(connection, failure('connect', 'ETIMEDOUT'), 1)
  engine.answer(connection, failure('connect', 'ETIMEDOUT'), 0)
  t.match(await raced, { outcome: { type: 'failed' } })
  t.same(failures, ['b', 'a'])
})

t.test('a final failure is the last one', async (t) => {
  const { connection, race, tried } = setUp({ a: failure('request', 'SOCKS_REPLY', 5), b: 'opened' })
  const final = ({ reply }: Failed) => reply === 5
  t.match(await race(connection, ['a', 'b'], { final }), { outcome: { type: 'failed', reply: 5 } })
  t.same(tried(), ['a'])
})

t.test('no path at all', async (t) => {
  const { connection, race } = setUp()
  t.same(await race(connection, []), { outcome: undefined })
})

t.test('a client that leaves in the middle of a race', async (t) => {
  const { engine, connection, race, tried } = setUp()
  const raced = race(connection, ['a', 'b'], { patienceMs: 30 })
  engine.leave(connection, 'client-reset')
  t.match(await raced, { outcome: { type: 'closed' } })
  await sleep(100)
  t.same(tried(), ['a'], 'nothing more is opened for it')
})
