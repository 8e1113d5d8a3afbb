import t from 'tap'
import { Attempts } from '../../src/shared/attempts.js'
import { FakeEngine, settle } from '../support/fake-engine.js'

const way = { protocol: 'tcp', remote: { address: '198.51.100.7', port: 443 }, connectTimeoutMs: 1000 } as const

function setUp() {
  const engine = new FakeEngine({
    onEvents: (events) => {
      for (const event of events)
        if (event.type === 'opened' || event.type === 'failed' || event.type === 'closed') attempts.settle(event)
    },
  })
  const attempts = new Attempts(engine)
  return { engine, attempts }
}

t.test('a client that left while the session awaited something else is remembered', async (t) => {
  const { engine, attempts } = setUp()
  const connection = engine.accept()
  attempts.begin(connection)
  engine.leave(connection, 'client-reset')
  await settle()
  t.match(await attempts.open(connection, way), { type: 'closed', reason: 'client-reset' })
  t.same(engine.opens, [])
})

t.test('a connection whose session has ended is forgotten', async (t) => {
  const { engine, attempts } = setUp()
  const connection = engine.accept()
  attempts.begin(connection)
  t.match(await attempts.open(connection, way), { type: 'opened' })
  attempts.end(connection)
  engine.leave(connection)
  await settle()
  let isSettled = false
  void attempts.open(connection, way).then(() => {
    isSettled = true
  })
  await settle()
  t.equal(isSettled, false, 'nothing of its end is kept')
})
