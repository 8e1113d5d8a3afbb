import t from 'tap'
import { type Cidr, parseCidr } from '../../src/base/address.js'
import { Access } from '../../src/hag/access.js'
import { Dialer, interleave, replyFor } from '../../src/hag/dialer.js'
import type { Names } from '../../src/hag/names.js'
import type { LogLevel } from '../../src/telemetry/log.js'
import { FakeEngine } from '../support/fake-engine.js'
import { type FarSide, failure, settle } from '../support/far-side.js'
import { memoryLog } from '../support/memory-log.js'

const names: Record<string, string[]> = {
  'one.example': ['198.51.100.7'],
  'both.example': ['2001:db8::7', '2001:db8::8', '198.51.100.7'],
  'rebind.example': ['127.0.0.1', '198.51.100.7', '::1', '10.0.0.1'],
  'inside.example': ['127.0.0.1', '192.168.0.1'],
}

function hag(far: FarSide, options: { users?: Record<string, string>; level?: LogLevel; resolve?: Names['resolve'] } = {}) {
  const log = memoryLog(options.level)
  const engine: FakeEngine = new FakeEngine({ onEvents: (events) => events.map((event) => dialer.handle(event)) }, far)
  const rules = { clients: [parseCidr('10.0.0.0/8') as Cidr], allow: [] }
  const dialer = new Dialer({
    engine,
    access: new Access(rules, (address) => address === '203.0.113.3'),
    connectTimeoutMs: 10_000,
    log,
    ...(options.users === undefined ? {} : { users: { accepts: (name, password) => options.users?.[name] === password } }),
    names: {
      resolve:
        options.resolve ??
        (async (name) => {
          const found = names[name]
          if (found === undefined) throw Object.assign(new Error('not found'), { code: 'ENOTFOUND' })
          return found
        }),
    },
  })
  return { engine, log, tried: () => engine.opens.map(({ spec }) => spec.remote.address) }
}

t.test('an allowed destination is opened with plain TCP', async (t) => {
  const { engine } = hag({})
  const connection = engine.request('198.51.100.7')
  await settle()
  t.equal(engine.opens.length, 1)
  const { spec } = engine.opens[0] as (typeof engine.opens)[0]
  t.match(spec, { protocol: 'tcp', remote: { address: '198.51.100.7', port: 443 } })
  t.ok(spec.connectTimeoutMs > 9000 && spec.connectTimeoutMs <= 10_000)
  t.same(engine.refusals, [])
  engine.leave(connection)
})

t.test('what is refused, without an attempt', async (t) => {
  for (const [host, reply] of [
    ['127.0.0.1', 2],
    ['203.0.113.3', 2],
    ['::ffff:10.0.0.1', 2],
    ['inside.example', 2],
    ['nowhere.example', 4],
  ] as const) {
    const { engine, tried } = hag({})
    engine.request(host)
    await settle()
    t.same(tried(), [], host)
    t.match(engine.refusals, [{ reply }], host)
  }
})

t.test('a client that is not listed gets reply 2, and its credentials are refused unseen', async (t) => {
  const { engine, tried } = hag({}, { users: { ann: 'pw' } })
  engine.request('198.51.100.7', { client: '11.0.0.1' })
  engine.credentials('ann', 'pw', { client: '11.0.0.1' })
  await settle()
  t.same(tried(), [])
  t.match(engine.refusals, [{ reply: 2 }])
  t.match(engine.authentications, [{ accepted: false }])
})

t.test('our own SOCKS port may be asked for, unless we are a client of our own', async (t) => {
  const { engine, tried } = hag({})
  engine.request('203.0.113.3', { port: 1080 })
  await settle()
  t.same(tried(), ['203.0.113.3'])
  engine.request('203.0.113.3', { port: 22 })
  await settle()
  t.equal(tried().length, 1)
  t.match(engine.refusals, [{ reply: 2 }])
})

t.test('credentials', async (t) => {
  const { engine, log } = hag({}, { users: { ann: 'sesame' }, level: 'debug' })
  engine.credentials('ann', 'sesame')
  engine.credentials('ann', 'wrong-one')
  await settle()
  t.match(engine.authentications, [{ accepted: true }, { accepted: false }])
  t.notMatch(JSON.stringify([log.lines, log.debugLines]), /sesame|wrong-one/)
})

t.test('every address of a name is checked, the bad ones are left out', async (t) => {
  const { engine, tried } = hag({ answer: () => failure('connect', 'ETIMEDOUT') })
  engine.request('rebind.example')
  await settle()
  t.same(tried(), ['198.51.100.7'])
})

t.test('the addresses of a name in turn, the families alternating', async (t) => {
  const { engine, tried } = hag({
    answer: (spec) => (spec.remote.address === '2001:db8::8' ? 'opened' : failure('connect', 'ENETUNREACH')),
  })
  engine.request('both.example')
  await settle()
  t.same(tried(), ['2001:db8::7', '198.51.100.7', '2001:db8::8'])
  t.same(engine.refusals, [])
})

t.test('an address that is silent is joined by the next one after a quarter of a second', async (t) => {
  const { engine, tried } = hag({ answer: (spec) => (spec.remote.address === '198.51.100.7' ? 'opened' : 'silence') })
  const startedAt = performance.now()
  engine.request('both.example')
  while (engine.opens.length < 2 && performance.now() - startedAt < 5000) await settle()
  t.ok(performance.now() - startedAt > 200)
  t.same(tried(), ['2001:db8::7', '198.51.100.7'])
  await settle()
  t.equal(engine.stats().relaying, 1)
  t.same(engine.refusals, [])
})

t.test('of several answers the most telling one', async (t) => {
  const { engine } = hag({
    answer: (spec) => failure('connect', spec.remote.address === '198.51.100.7' ? 'ECONNREFUSED' : 'ENETUNREACH'),
  })
  engine.request('both.example')
  await settle()
  t.match(engine.refusals, [{ reply: 5 }])
})

t.test('the reply tells the truth', async (t) => {
  const replies: [string, number][] = [
    ['ECONNREFUSED', 5],
    ['ENETUNREACH', 3],
    ['EHOSTUNREACH', 4],
    ['ETIMEDOUT', 4],
    ['EACCES', 2],
    ['EPERM', 2],
    ['EADDRNOTAVAIL', 1],
    ['EMFILE', 1],
  ]
  for (const [code, reply] of replies) {
    t.equal(replyFor({ code, errno: 0, syscall: 'connect' }), reply, code)
    const { engine } = hag({ answer: () => failure('connect', code) })
    engine.request('198.51.100.7')
    await settle()
    t.match(engine.refusals, [{ reply }], code)
  }
})

t.test('a client that goes away while its name is resolved', async (t) => {
  let answer: (addresses: string[]) => void = () => undefined
  let asked: { client: string; signal: AbortSignal } | undefined
  const resolve: Names['resolve'] = (_, client, signal) => {
    asked = { client, signal }
    return new Promise((resolve) => (answer = resolve))
  }
  const { engine, tried } = hag({}, { resolve })
  const connection = engine.request('slow.example')
  await settle()
  t.match(asked, { client: '10.1.0.2', signal: { aborted: false } })
  engine.leave(connection, 'client-reset')
  await settle()
  t.equal(asked?.signal.aborted, true, 'nobody asks for it any more')
  answer(['198.51.100.7'])
  await settle()
  t.same(tried(), [])
  t.same(engine.refusals, [])
})

t.test('debug: one line a connection', async (t) => {
  const { engine, log } = hag({}, { level: 'debug' })
  const connection = engine.request('one.example')
  await settle()
  engine.leave(connection)
  await settle()
  t.match(log.debugLines, [
    { message: 'connection closed', client: '10.1.0.2:40000', destination: '198.51.100.7:443', reason: 'end' },
  ])
})

t.test('interleave', async (t) => {
  t.same(interleave(['a:', 'b:', '1', '2', '3']), ['a:', '1', 'b:', '2', '3'])
  t.same(interleave(['1', 'a:', '2']), ['1', 'a:', '2'])
  t.same(interleave([]), [])
})
