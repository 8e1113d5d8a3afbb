/** What a session does with a connection, from its client to its count. */
import t from 'tap'
import { failure, settle } from '../support/far-side.js'
import { everyPath, first, gateway, isHag, second } from '../support/sessions.js'
import { dsl, lte, pathsOf } from '../support/steering.js'

t.test('a connection goes to the first HAG over the first WAN', async (t) => {
  const { engine, tried } = gateway({})
  const connection = engine.accept()
  await settle()
  t.same(engine.opens, [
    {
      connection,
      attempt: 0,
      spec: {
        protocol: 'mptcp',
        remote: { address: '203.0.113.3', port: 1080 },
        bind: '10.1.0.2',
        connectTimeoutMs: 3000,
        socks: { host: '198.51.100.7', port: 443, handshake: 'sequential', timeoutMs: 15_000, username: 'me', password: 'pw' },
      },
    },
  ])
  t.same(tried(), everyPath.slice(0, 1))
  engine.leave(connection)
  await settle()
  t.same(engine.resets, [])
})

t.test('the engine is told what to do with clients about whom nothing has to be decided', async (t) => {
  const { engine, pathTable } = gateway({})
  t.match(engine.fastPath, {
    protocol: 'mptcp',
    remote: { address: '203.0.113.3', port: 1080 },
    bind: '10.1.0.2',
    patienceMs: 150,
    socks: { handshake: 'sequential', username: 'me', password: 'pw' },
  })
  const text = (networks: readonly { address: string; bits: number }[] = []) =>
    networks.map((one) => `${one.address}/${one.bits}`)
  t.same(text(engine.fastPath?.askAboutDestinations), ['192.0.2.0/24'])
  const before = engine.fastPath
  pathTable.use(pathsOf({ hags: [first, second] }))
  t.equal(engine.fastPath, before, 'nothing has changed')
  pathTable.use(pathsOf({ hags: [first, second], down: [first, second] }))
  t.equal(engine.fastPath, undefined, 'direct connections are ours to decide about')
  t.match(gateway({}, { level: 'debug' }).engine.fastPath, before, 'whatever is logged')
})

t.test('a client of a former fast path is told from those of the new one', async (t) => {
  const { engine, pathTable, tried } = gateway({ answer: ({ bind }) => (bind === '10.1.0.2' ? 'silence' : 'opened') })
  const connection = engine.accept()
  pathTable.use(pathsOf({ hags: [first], wans: [lte, dsl] }))
  t.equal(engine.fastPath?.bind, '10.2.0.2')
  engine.answer(connection, failure('connect', 'ETIMEDOUT'))
  await settle()
  t.same(tried(), ['203.0.113.3 via 10.1.0.2', '203.0.113.3 via 10.2.0.2'])
  t.equal(engine.stats().relaying, 1)
  t.equal(pathTable.pathsTo('198.51.100.7')[0]?.wan, 'lte')
  t.equal(pathTable.pathsTo('198.51.100.7')[1]?.hag, undefined, 'it was DSL that failed')
})

t.test('an IPv6 destination goes through a HAG reached over IPv4, and has no direct path without an IPv6 WAN', async (t) => {
  const { engine, tried } = gateway({ answer: () => failure('connect', 'ETIMEDOUT') })
  engine.accept({ destination: '2001:db8::7' })
  await settle()
  t.equal(engine.opens[0]?.spec.socks?.host, '2001:db8::7')
  t.same(tried(), everyPath.slice(0, 4))
  t.equal(engine.resets.length, 1)
})

t.test('direct is plain TCP to the destination itself', async (t) => {
  const { engine } = gateway({ answer: (spec) => (isHag(spec) ? failure('connect', 'ETIMEDOUT') : 'opened') })
  engine.accept()
  await settle()
  t.same(engine.opens.at(-1)?.spec, {
    protocol: 'tcp',
    remote: { address: '198.51.100.7', port: 443 },
    bind: '10.1.0.2',
    connectTimeoutMs: 3000,
  })
  t.same(engine.resets, [])
})

t.test('a HAG that takes it gets all in one go; what may have reached the server is not sent over another path', async (t) => {
  for (const [answer, count] of [
    [{ ...(failure('request', 'ECONNRESET') as object), early: 5 }, 1],
    [failure('request', 'ECONNRESET'), 6],
    [failure('request', 'SOCKS_REPLY', 1), 6],
  ] as [ReturnType<typeof failure>, number][]) {
    const { engine, pathTable, tried } = gateway({ answer: () => answer })
    pathTable.use(pathsOf({ hags: [first, second], pipelining: [first] }))
    engine.accept()
    await settle()
    t.same(
      engine.opens.slice(0, 3).map(({ spec }) => spec.socks?.handshake),
      ['pipelined', 'pipelined', 'sequential'].slice(0, count),
    )
    t.equal(tried().length, count)
    t.equal(engine.resets.length, 1)
  }
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
  t.same(tried(), everyPath.slice(0, 1))
  t.same(engine.resets, [])
})

t.test('a client that goes away just when an attempt failed (both events in one batch)', async (t) => {
  const { engine, tried } = gateway({ answer: () => 'silence' })
  const connection = engine.accept()
  await settle()
  engine.answer(connection, failure('connect', 'ETIMEDOUT'))
  engine.leave(connection, 'client-reset')
  await settle()
  t.same(tried(), everyPath.slice(0, 1), 'no other path is dialled for it')
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
  // Another fast path over the same path: it is still told whose the first connection is.
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
