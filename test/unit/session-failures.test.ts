/** Which path a session takes next if one fails: what is about the destination, what about the HAG, and how long its cool-down is. */
import t from 'tap'
import type { DialSpec } from '../../src/engine/contract.js'
import { failure, settle } from '../support/far-side.js'
import { everyPath, first, gateway, isHag, second } from '../support/sessions.js'
import { pathsOf } from '../support/steering.js'

t.test('a path that fails is not the fast path until it works again', async (t) => {
  let down = true
  const { engine, clock, pathTable, tried } = gateway({
    answer: (spec) => (down && spec.bind === '10.1.0.2' ? failure('connect', 'ETIMEDOUT') : 'opened'),
  })
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 2))
  t.equal(engine.fastPath, undefined)
  down = false
  clock.now += 5001
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 1))
  t.equal(engine.fastPath?.bind, '10.1.0.2')
  t.equal(pathTable.fastPath?.wan, 'dsl')
})

t.test('attempts that end because their WAN is lost: once it is back, connections go to the same HAG', async (t) => {
  const { engine, tried } = gateway({ answer: () => 'silence' })
  engine.accept()
  await settle()
  for (const lost of ['10.1.0.2', '10.2.0.2']) {
    engine.abandon(lost)
    await settle()
  }
  t.same(tried(), everyPath.slice(0, 3))
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 1))
})

t.test('every path in its order, then a RST', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ETIMEDOUT') })
  const connection = engine.accept()
  await settle()
  t.same(tried(), everyPath)
  t.same(engine.resets, [connection])
})

t.test('on_hag_down reject: never direct', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ECONNREFUSED') }, { onHagDown: 'reject' })
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 4))
  t.equal(engine.resets.length, 1)
})

t.test("on_hag_down reject: services of a HAG's own machine are reached without it, where it does not allow them", async (t) => {
  const isRefused = (spec: DialSpec) => (isHag(spec) ? failure('request', 'SOCKS_REPLY', 2) : 'opened')
  const { engine, tried } = gateway({ answer: isRefused }, { onHagDown: 'reject', hags: [first] })
  engine.accept({ destination: first.address, port: 22 })
  await settle()
  t.equal(tried().at(-1), `${first.address} via 10.1.0.2`)
  t.equal(engine.stats().relaying, 1)
  engine.accept()
  await settle()
  t.equal(engine.resets.length, 1, 'what it forbids elsewhere is forbidden')
  t.notOk(tried().some((one) => one.startsWith('198.51.100.7')))
})

t.test("a HAG that is down does not open its machine's services to a direct connection with reject", async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ECONNREFUSED') }, { onHagDown: 'reject', hags: [first] })
  engine.accept({ destination: first.address, port: 22 })
  await settle()
  t.equal(engine.resets.length, 1)
  t.same(tried(), everyPath.slice(0, 2), 'nothing but the HAG')
})

for (const reply of [3, 4, 5, 6]) {
  t.test(`reply ${reply} is about the destination: RST, no other path`, async (t) => {
    const { engine, tried } = gateway({ answer: () => failure('request', 'SOCKS_REPLY', reply) })
    engine.accept()
    await settle()
    t.same(tried(), everyPath.slice(0, 1))
    t.equal(engine.resets.length, 1)
  })
}

for (const reply of [1, 2, 7, 8]) {
  t.test(`reply ${reply}: the next path`, async (t) => {
    const { engine, tried } = gateway({
      answer: (spec) => (spec.bind === '10.2.0.2' ? 'opened' : failure('request', 'SOCKS_REPLY', reply)),
    })
    engine.accept()
    await settle()
    t.same(tried(), everyPath.slice(0, 2))
    engine.accept()
    await settle()
    t.same(tried(), everyPath.slice(0, 2), 'and the HAG is not taken for broken')
  })
}

t.test('a destination that refuses a direct connection is not asked over the other WAN', async (t) => {
  const { engine, tried } = gateway({ answer: (spec) => failure('connect', isHag(spec) ? 'ETIMEDOUT' : 'ECONNREFUSED') })
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 5))
  t.equal(engine.resets.length, 1)
})

t.test('a HAG that failed has a cool-down: direct at once, one try after five seconds, back when it works', async (t) => {
  let down = true
  let dslFails = false
  const fails = (spec: DialSpec) => isHag(spec) && (down || (dslFails && spec.bind === '10.1.0.2'))
  const { engine, tried, clock } = gateway(
    { answer: (spec) => (fails(spec) ? failure('connect', 'ETIMEDOUT') : 'opened') },
    { hags: [second] },
  )
  const [hagDsl, hagLte, direct] = everyPath.slice(2) as [string, string, string]
  engine.accept()
  await settle()
  t.same(tried(), [hagDsl, hagLte, direct])
  engine.accept()
  await settle()
  t.same(tried(), [direct])
  clock.now += 5001
  engine.accept()
  engine.accept()
  await settle()
  const retried = tried()
  t.equal(retried.filter((one) => one === hagDsl).length, 1, 'one of two connections tries DSL again')
  t.ok(retried.includes(hagLte))
  t.equal(retried.filter((one) => one === direct).length, 2)
  down = false
  clock.now += 5001
  for (let n = 0; n < 3; n++) {
    engine.accept()
    await settle()
  }
  t.same(tried(), [hagDsl, hagDsl, hagDsl])
  dslFails = true
  engine.accept()
  await settle()
  t.same(tried(), [hagDsl, hagLte], 'what was never tried again does not stay in its cool-down')
})

t.test('a HAG that is found to be down while a connection tries it is not tried over the other WAN', async (t) => {
  const { engine, tried, pathTable } = gateway({
    answer: ({ remote }) => {
      if (remote.address !== first.address) return 'opened'
      pathTable.use(pathsOf({ hags: [first, second], down: [first] }))
      return failure('connect', 'ECONNRESET')
    },
  })
  engine.accept()
  await settle()
  t.same(tried(), ['203.0.113.3 via 10.1.0.2', '203.0.113.4 via 10.1.0.2'])
})

t.test('with reject a HAG that failed is tried last, not skipped', async (t) => {
  const { engine, tried } = gateway(
    { answer: (spec) => (spec.remote.address === '203.0.113.3' ? failure('connect', 'ETIMEDOUT') : 'opened') },
    { onHagDown: 'reject' },
  )
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 3))
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(2, 3))
})

t.test('with reject the only HAG is tried every time', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ETIMEDOUT') }, { hags: [second], onHagDown: 'reject' })
  for (let n = 0; n < 2; n++) {
    engine.accept()
    await settle()
    t.same(tried(), everyPath.slice(2, 4))
  }
})

t.test('credentials refused: the next HAG, and the prober is told', async (t) => {
  const { engine, tried, suspicions } = gateway({
    answer: (spec) => (spec.remote.address === '203.0.113.3' ? failure('authentication', 'EACCES') : 'opened'),
  })
  engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 3))
  t.same(suspicions, ['203.0.113.3 connection', '203.0.113.3 connection'])
})

t.test('a request without an answer, or with a general failure, makes the HAG suspicious; other replies do not', async (t) => {
  for (const [answer, suspected] of [
    [failure('request', 'ETIMEDOUT'), true],
    [failure('request', 'SOCKS_REPLY', 1), true],
    [failure('request', 'SOCKS_REPLY', 2), false],
    [failure('request', 'SOCKS_REPLY', 5), false],
  ] as const) {
    const { engine, suspicions } = gateway({ answer: (spec) => (spec.bind === '10.1.0.2' ? answer : 'opened') })
    engine.accept()
    await settle()
    t.same(suspicions.slice(0, 1), suspected ? ['203.0.113.3 request'] : [])
  }
})

t.test('a silent path is joined by the next one after three of its round trips', async (t) => {
  const { engine, tried } = gateway({ answer: () => 'silence' })
  const connection = engine.accept()
  await settle()
  t.same(tried(), everyPath.slice(0, 1))
  const startedAt = performance.now()
  while (engine.opens.length === 0 && performance.now() - startedAt < 5000) await settle()
  const after = performance.now() - startedAt
  t.ok(after > 120, `not before ${after} ms`)
  t.same(tried(), everyPath.slice(1, 2))
  engine.answer(connection, 'opened', 1)
  await settle()
  t.equal(engine.stats().relaying, 1)
  t.same(tried(), [])
})
