import t from 'tap'
import type { EngineEvent } from '../../src/engine/contract.js'
import { eachEvent, reportFault } from '../../src/service/faults.js'
import { StopSignals } from '../../src/service/signals.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'

const limit = { type: 'limit', limited: true, cause: 'memory' } as const
const credentials = (connection: number): EngineEvent => ({
  type: 'credentials',
  connection,
  client: { address: '10.1.0.2', port: 1 },
  username: 'ann',
  password: 'x',
})

t.test('whatever one event throws, the others are handled', async (t) => {
  const log = memoryLog()
  const resets: number[] = []
  const handled: EngineEvent[] = []
  const onEvents = eachEvent(
    () => ({ reset: (connection) => resets.push(connection) }),
    log,
    (event) => {
      handled.push(event)
      if (event.type === 'limit') throw 'a text'
      if (event.type === 'credentials' && event.connection === 2) throw new TypeError('x is undefined')
    },
  )
  const batch = [limit, credentials(1), credentials(2), credentials(3)]
  onEvents(batch)
  t.same(handled, batch)
  t.same(resets, [2])
  t.same(log.lines, [
    'error unexpected error, its connection is reset: a text',
    'error unexpected error, its connection is reset: x is undefined',
  ])
})

t.test('ten faults a minute are logged, and how many more there were', async (t) => {
  const log = memoryLog()
  for (let count = 0; count < 1000; count++) reportFault(log, 'what', new Error('y'), 5)
  t.equal(log.lines.length, 10)
  reportFault(log, 'what', new Error('y'), 60_005)
  t.same(log.lines.slice(10), ['error 990 more unexpected errors', 'error what: y'])
})

t.test('SIGTERM asks to stop, and then to hurry; SIGHUP and a forgotten promise do not', async (t) => {
  const log = memoryLog()
  const before = process.listenerCount('SIGHUP')
  const signals = new StopSignals(log, toLog(log))
  process.emit('SIGHUP', 'SIGHUP')
  process.listeners('unhandledRejection').at(-1)?.(new Error('forgotten'), Promise.resolve())
  t.equal(signals.stop.aborted, false)
  t.same(log.lines, ['info SIGHUP is ignored: SIGTERM stops', 'error unexpected error in what nobody waits for: forgotten'])
  process.emit('SIGTERM', 'SIGTERM')
  t.equal(signals.stop.aborted, true)
  t.equal(signals.hurry.aborted, false)
  process.emit('SIGINT', 'SIGINT')
  t.equal(signals.hurry.aborted, true)
  signals.dispose()
  t.equal(process.listenerCount('SIGHUP'), before)
})

t.test('an uncaught exception ends all in good order, and is what all fails with', async (t) => {
  const log = memoryLog()
  const signals = new StopSignals(log, toLog(log))
  const error = new Error('nobody caught me')
  process.listeners('uncaughtException').at(-1)?.(error, 'uncaughtException')
  signals.fail(new Error('and one more'))
  t.ok(signals.stop.aborted && signals.hurry.aborted)
  t.throws(() => signals.dispose(), error)
  t.match(log.lines, [/unexpected error, the end follows: nobody caught me/, /and one more/])
})

t.test('a program that could not be started for want of descriptors ends nothing', async (t) => {
  const log = memoryLog()
  const signals = new StopSignals(log, toLog(log))
  const error = Object.assign(new Error('spawn ip EMFILE'), { code: 'EMFILE', syscall: 'spawn ip' })
  process.listeners('uncaughtException').at(-1)?.(error, 'uncaughtException')
  t.notOk(signals.stop.aborted)
  signals.dispose()
  t.match(log.lines, [/a program could not be started: spawn ip EMFILE/])
})
