import t from 'tap'
import { type Cidr, parseCidr } from '../../src/base/address.js'
import type { DialSpec } from '../../src/engine/contract.js'
import { PathTable } from '../../src/gateway/connections/path-table.js'
import { Bypass } from '../../src/gateway/connections/policy.js'
import { Sessions } from '../../src/gateway/connections/session.js'
import type { LogLevel } from '../../src/telemetry/log.js'
import { FakeEngine, type FarSide, failure, settle } from '../support/fake-engine.js'
import { memoryLog } from '../support/memory-log.js'
import { dsl, lte, pathsOf } from '../support/steering.js'

const first = { address: '203.0.113.3', port: 1080, username: 'me', password: 'pw' }
const second = { address: '203.0.113.4', port: 1080 }

function gateway(far: FarSide, options: { onHagDown?: 'direct' | 'reject'; hags?: (typeof second)[]; level?: LogLevel } = {}) {
  const log = memoryLog(options.level)
  const clock = { now: 1000 }
  const engine: FakeEngine = new FakeEngine({ onEvents: (events) => events.map((event) => sessions.handle(event)) }, far)
  const { onHagDown = 'direct', hags = [first, second] } = options
  const pathTable = new PathTable({ onHagDown, now: () => clock.now })
  pathTable.use(pathsOf({ hags, onHagDown }))
  const suspicions: string[] = []
  const bypass = new Bypass({ bypass: [parseCidr('192.0.2.0/24') as Cidr] })
  const sessions: Sessions = new Sessions({
    engine,
    pathTable,
    bypass,
    connectTimeoutMs: 3000,
    report: (fact) => fact.type === 'hag-trouble' && suspicions.push(`${fact.hag.address} ${fact.about}`),
    log,
  })
  /** `remote via bind` of every attempt since the last call. */
  const tried = () => engine.opens.splice(0).map(({ way }) => `${way.remote.address} via ${way.bind}`)
  return { engine, sessions, pathTable, log, clock, tried, suspicions }
}

const everyWay = [
  '203.0.113.3 via 10.1.0.2',
  '203.0.113.3 via 10.2.0.2',
  '203.0.113.4 via 10.1.0.2',
  '203.0.113.4 via 10.2.0.2',
  '198.51.100.7 via 10.1.0.2',
  '198.51.100.7 via 10.2.0.2',
]
const isHag = (way: DialSpec) => way.socks !== undefined

t.test('a connection goes to the first HAG over the first WAN', async (t) => {
  const { engine, tried } = gateway({})
  const connection = engine.accept()
  await settle()
  t.same(engine.opens, [
    {
      connection,
      attempt: 0,
      way: {
        protocol: 'mptcp',
        remote: { address: '203.0.113.3', port: 1080 },
        bind: '10.1.0.2',
        connectTimeoutMs: 3000,
        socks: { host: '198.51.100.7', port: 443, handshake: 'sequential', timeoutMs: 15_000, username: 'me', password: 'pw' },
      },
    },
  ])
  t.same(tried(), everyWay.slice(0, 1))
  engine.leave(connection)
  await settle()
  t.same(engine.resets, [])
})

t.test('the engine is told what to do with clients about whom nothing has to be decided', async (t) => {
  const { engine, pathTable } = gateway({})
  t.match(engine.order, {
    protocol: 'mptcp',
    remote: { address: '203.0.113.3', port: 1080 },
    bind: '10.1.0.2',
    patienceMs: 150,
    socks: { handshake: 'sequential', username: 'me', password: 'pw' },
  })
  const text = (networks: readonly { address: string; bits: number }[] = []) =>
    networks.map((one) => `${one.address}/${one.bits}`)
  t.same(text(engine.order?.askAboutDestinations), ['192.0.2.0/24'])
  const before = engine.order
  pathTable.use(pathsOf({ hags: [first, second] }))
  t.equal(engine.order, before, 'nothing has changed')
  pathTable.use(pathsOf({ hags: [first, second], down: [first, second] }))
  t.equal(engine.order, undefined, 'direct connections are ours to decide about')
  t.match(gateway({}, { level: 'debug' }).engine.order, before, 'whatever is logged')
})

t.test("a way that fails is nobody else's order until it works again", async (t) => {
  let down = true
  const { engine, clock, pathTable, tried } = gateway({
    answer: (way) => (down && way.bind === '10.1.0.2' ? failure('connect', 'ETIMEDOUT') : 'opened'),
  })
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 2))
  t.equal(engine.order, undefined)
  down = false
  clock.now += 5001
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 1))
  t.equal(engine.order?.bind, '10.1.0.2')
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
  t.same(tried(), everyWay.slice(0, 3))
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 1))
})

t.test('a client of a former order is told from those of the new one', async (t) => {
  const { engine, pathTable, tried } = gateway({ answer: ({ bind }) => (bind === '10.1.0.2' ? 'silence' : 'opened') })
  const connection = engine.accept()
  pathTable.use(pathsOf({ hags: [first], wans: [lte, dsl] }))
  t.equal(engine.order?.bind, '10.2.0.2')
  engine.answer(connection, failure('connect', 'ETIMEDOUT'))
  await settle()
  t.same(tried(), ['203.0.113.3 via 10.1.0.2', '203.0.113.3 via 10.2.0.2'])
  t.equal(engine.stats().relaying, 1)
  t.equal(pathTable.pathsTo('198.51.100.7')[0]?.wan, 'lte')
  t.equal(pathTable.pathsTo('198.51.100.7')[1]?.hag, undefined, 'it was DSL that failed')
})

t.test('an IPv6 destination goes through a HAG reached over IPv4, and has no direct way without an IPv6 WAN', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ETIMEDOUT') })
  engine.accept({ destination: '2001:db8::7' })
  await settle()
  t.equal(engine.opens[0]?.way.socks?.host, '2001:db8::7')
  t.same(tried(), everyWay.slice(0, 4))
  t.equal(engine.resets.length, 1)
})

t.test('every way in order, then a RST', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ETIMEDOUT') })
  const connection = engine.accept()
  await settle()
  t.same(tried(), everyWay)
  t.same(engine.resets, [connection])
})

t.test('on_hag_down reject: never direct', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ECONNREFUSED') }, { onHagDown: 'reject' })
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 4))
  t.equal(engine.resets.length, 1)
})

t.test("on_hag_down reject: services of a HAG's own machine are reached without it, where it does not allow them", async (t) => {
  const isRefused = (way: DialSpec) => (isHag(way) ? failure('request', 'SOCKS_REPLY', 2) : 'opened')
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
  t.same(tried(), everyWay.slice(0, 2), 'nothing but the HAG')
})

t.test('direct is plain TCP to the destination itself', async (t) => {
  const { engine } = gateway({ answer: (way) => (isHag(way) ? failure('connect', 'ETIMEDOUT') : 'opened') })
  engine.accept()
  await settle()
  t.same(engine.opens.at(-1)?.way, {
    protocol: 'tcp',
    remote: { address: '198.51.100.7', port: 443 },
    bind: '10.1.0.2',
    connectTimeoutMs: 3000,
  })
  t.same(engine.resets, [])
})

for (const reply of [3, 4, 5, 6]) {
  t.test(`reply ${reply} is about the destination: RST, no other way`, async (t) => {
    const { engine, tried } = gateway({ answer: () => failure('request', 'SOCKS_REPLY', reply) })
    engine.accept()
    await settle()
    t.same(tried(), everyWay.slice(0, 1))
    t.equal(engine.resets.length, 1)
  })
}

for (const reply of [1, 2, 7, 8]) {
  t.test(`reply ${reply}: the next way`, async (t) => {
    const { engine, tried } = gateway({
      answer: (way) => (way.bind === '10.2.0.2' ? 'opened' : failure('request', 'SOCKS_REPLY', reply)),
    })
    engine.accept()
    await settle()
    t.same(tried(), everyWay.slice(0, 2))
    engine.accept()
    await settle()
    t.same(tried(), everyWay.slice(0, 2), 'and the HAG is not taken for broken')
  })
}

t.test('a destination that refuses a direct connection is not asked over the other WAN', async (t) => {
  const { engine, tried } = gateway({ answer: (way) => failure('connect', isHag(way) ? 'ETIMEDOUT' : 'ECONNREFUSED') })
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 5))
  t.equal(engine.resets.length, 1)
})

t.test('a HAG that failed rests: direct at once, one try after five seconds, back when it works', async (t) => {
  let down = true
  let dslFails = false
  const fails = (way: DialSpec) => isHag(way) && (down || (dslFails && way.bind === '10.1.0.2'))
  const { engine, tried, clock } = gateway(
    { answer: (way) => (fails(way) ? failure('connect', 'ETIMEDOUT') : 'opened') },
    { hags: [second] },
  )
  const [hagDsl, hagLte, direct] = everyWay.slice(2) as [string, string, string]
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
  t.same(tried(), [hagDsl, hagLte], 'what was never tried again does not go on resting')
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
    { answer: (way) => (way.remote.address === '203.0.113.3' ? failure('connect', 'ETIMEDOUT') : 'opened') },
    { onHagDown: 'reject' },
  )
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 3))
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(2, 3))
})

t.test('with reject the only HAG is tried every time', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ETIMEDOUT') }, { hags: [second], onHagDown: 'reject' })
  for (let n = 0; n < 2; n++) {
    engine.accept()
    await settle()
    t.same(tried(), everyWay.slice(2, 4))
  }
})

t.test('credentials refused: the next HAG, and the prober is told', async (t) => {
  const { engine, tried, suspicions } = gateway({
    answer: (way) => (way.remote.address === '203.0.113.3' ? failure('authentication', 'EACCES') : 'opened'),
  })
  engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 3))
  t.same(suspicions, ['203.0.113.3 connection', '203.0.113.3 connection'])
})

t.test('a request without an answer, or with a general failure, makes the HAG suspicious; other replies do not', async (t) => {
  for (const [answer, suspected] of [
    [failure('request', 'ETIMEDOUT'), true],
    [failure('request', 'SOCKS_REPLY', 1), true],
    [failure('request', 'SOCKS_REPLY', 2), false],
    [failure('request', 'SOCKS_REPLY', 5), false],
  ] as const) {
    const { engine, suspicions } = gateway({ answer: (way) => (way.bind === '10.1.0.2' ? answer : 'opened') })
    engine.accept()
    await settle()
    t.same(suspicions.slice(0, 1), suspected ? ['203.0.113.3 request'] : [])
  }
})

t.test('a HAG that takes it gets all in one go; what may have reached the server is not sent over another way', async (t) => {
  for (const [answer, ways] of [
    [{ ...(failure('request', 'ECONNRESET') as object), early: 5 }, 1],
    [failure('request', 'ECONNRESET'), 6],
    [failure('request', 'SOCKS_REPLY', 1), 6],
  ] as [ReturnType<typeof failure>, number][]) {
    const { engine, pathTable, tried } = gateway({ answer: () => answer })
    pathTable.use(pathsOf({ hags: [first, second], pipelining: [first] }))
    engine.accept()
    await settle()
    t.same(
      engine.opens.slice(0, 3).map(({ way }) => way.socks?.handshake),
      ['pipelined', 'pipelined', 'sequential'].slice(0, ways),
    )
    t.equal(tried().length, ways)
    t.equal(engine.resets.length, 1)
  }
})

t.test('a silent way is joined by the next one after three of its round trips', async (t) => {
  const { engine, tried } = gateway({ answer: () => 'silence' })
  const connection = engine.accept()
  await settle()
  t.same(tried(), everyWay.slice(0, 1))
  const startedAt = performance.now()
  while (engine.opens.length === 0 && performance.now() - startedAt < 5000) await settle()
  const after = performance.now() - startedAt
  t.ok(after > 120, `not before ${after} ms`)
  t.same(tried(), everyWay.slice(1, 2))
  engine.answer(connection, 'opened', 1)
  await settle()
  t.equal(engine.stats().relaying, 1)
  t.same(tried(), [])
})

t.test('a bypassed destination that arrives nevertheless goes direct', async (t) => {
  const { engine, tried } = gateway({}, { onHagDown: 'reject' })
  engine.accept({ destination: '192.0.2.9' })
  await settle()
  t.same(tried(), ['192.0.2.9 via 10.1.0.2'])
})

t.test('a client that goes away while we try', async (t) => {
  const { engine, tried } = gateway({ answer: () => 'silence' })
  const connection = engine.accept()
  await settle()
  engine.leave(connection, 'client-reset')
  await settle()
  t.same(tried(), everyWay.slice(0, 1))
  t.same(engine.resets, [])
})

t.test('a client that goes away just when an attempt failed (both events in one batch)', async (t) => {
  const { engine, tried } = gateway({ answer: () => 'silence' })
  const connection = engine.accept()
  await settle()
  engine.answer(connection, failure('connect', 'ETIMEDOUT'))
  engine.leave(connection, 'client-reset')
  await settle()
  t.same(tried(), everyWay.slice(0, 1), 'no other way is opened for it')
  t.same(engine.resets, [])
})

t.test('debug: one line a connection, with what it was', async (t) => {
  const { engine, log } = gateway({}, { level: 'debug' })
  const line = { message: 'connection closed', client: '192.168.1.20:40000' }
  const counts = { sent: 100, received: 2000, durationMs: 1 }
  const byFastPath = engine.accept()
  const asked = engine.accept({ destination: '192.0.2.1' })
  await settle()
  engine.leave(byFastPath)
  engine.leave(asked)
  await settle()
  t.same(log.debugLines, [
    { ...line, destination: '198.51.100.7:443', via: 'HAG 203.0.113.3:1080 over dsl', reason: 'end', ...counts },
    { ...line, destination: '192.0.2.1:443', via: 'direct over dsl', reason: 'end', ...counts },
  ])
})

t.test('a connection that is over before anybody has looked (both events in one batch)', async (t) => {
  const { engine, sessions, log } = gateway({ answer: () => 'silence' }, { level: 'debug' })
  const connection = engine.accept({ destination: '192.0.2.1' })
  await settle()
  engine.answer(connection, 'opened')
  engine.leave(connection)
  await settle()
  t.match(log.debugLines, [{ destination: '192.0.2.1:443', via: 'direct over dsl', reason: 'end' }])
  t.match(sessions.countsByPath(), [{ wan: 'dsl', opened: 1, sent: 100 }])
})

t.test('what every path did is counted, whoever chose it', async (t) => {
  let dslFails = false
  const { engine, sessions, pathTable } = gateway({
    answer: ({ bind, socks }) =>
      dslFails && socks !== undefined && bind === '10.1.0.2' ? failure('greeting', 'EACCES') : 'opened',
  })
  const leave = async (connection: number) => {
    await settle()
    engine.leave(connection)
    await settle()
  }
  t.same(sessions.countsByPath(), [])
  const failed = { connect: 0, greeting: 0, authentication: 0, request: 0 }
  const byDsl = {
    hag: { address: '203.0.113.3', port: 1080 },
    wan: 'dsl',
    opened: 2,
    failed,
    fallbacks: 0,
    sent: 200,
    received: 4000,
  }
  const longLived = engine.accept()
  await leave(engine.accept())
  // Another order for the same path: it is still told whose the first connection is.
  pathTable.use(pathsOf({ hags: [first, second], pipelining: [first, second] }))
  await leave(longLived)
  t.same(sessions.countsByPath(), [byDsl])

  dslFails = true
  await leave(engine.accept())
  await leave(engine.accept({ destination: '192.0.2.1' }))
  t.same(sessions.countsByPath(), [
    { ...byDsl, failed: { ...failed, greeting: 1 } },
    { ...byDsl, wan: 'lte', opened: 1, sent: 100, received: 2000 },
    { wan: 'dsl', opened: 1, failed, fallbacks: 0, sent: 100, received: 2000 },
  ])
})

t.test('a client that leaves before anything was opened counts for no path', async (t) => {
  const { engine, sessions } = gateway({ answer: () => 'silence' })
  engine.leave(engine.accept(), 'client-reset')
  await settle()
  t.same(sessions.countsByPath(), [])
})
