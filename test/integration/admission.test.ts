/** Whom the engine lets in, on loopback, where clients are told apart by 127.0.0.x. */
import { connect as dial, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import { EngineUnderTest, echo, needsAddon, specTo } from '../support/engine.js'
import { remeasure, settle } from '../support/wait.js'

const greeting = Buffer.from([5, 1, 0])
const requestFor = ({ address, port }: SocketAddress) =>
  Buffer.from([5, 1, 0, 1, ...address.split('.').map(Number), port >> 8, port & 255])
/** How an RST ends a connection here: to libuv one right behind unread bytes is an end. */
const reset = /^(ECONNRESET|EPIPE|end)$/
const networks = (...addresses: string[]) => addresses.map((address) => ({ address, bits: 32 }))

/** A client with an address of its own. `hears` takes what comes next. */
function callFrom(t: Test, localAddress: string, { address: host, port }: SocketAddress, say?: Buffer | string) {
  const socket = dial({ host, port, localAddress, allowHalfOpen: true, noDelay: true })
  t.teardown(() => socket.destroy())
  let bytes = Buffer.alloc(0)
  let ending = 'closed by the test'
  socket.on('data', (data: Buffer) => {
    bytes = Buffer.concat([bytes, data])
  })
  socket.on('end', () => {
    ending = 'end'
    socket.end()
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    ending = error.code ?? 'error'
  })
  const over = new Promise<{ bytes: Buffer; ending: string }>((resolve) => socket.on('close', () => resolve({ bytes, ending })))
  const receive = async (length: number) => {
    await settle(
      () => bytes.length >= length || socket.destroyed,
      (isOver) => isOver,
    )
    const received = bytes.subarray(0, length)
    bytes = bytes.subarray(length)
    return received
  }
  if (say !== undefined) socket.write(say)
  return { socket, over, receive }
}

/** A whole SOCKS connection to an echo server; stays open. */
async function relays(t: Test, from: string, hag: SocketAddress, server: SocketAddress): Promise<Socket> {
  const { socket, receive } = callFrom(t, from, hag, Buffer.concat([greeting, requestFor(server), Buffer.from('hello')]))
  const received = await receive(2 + 10 + 5)
  t.same([received[0], received[1], received[3], received.subarray(12).toString()], [5, 0, 0, 'hello'], `${from} is served`)
  return socket
}

/** A HAG that connects to whatever is asked for. */
function hagFor(t: Test, options: ConstructorParameters<typeof EngineUnderTest>[1], clients: string[]) {
  const tested = new EngineUnderTest(t, options)
  tested.always((event) =>
    specTo(event.type === 'request' ? { address: event.host, port: event.port } : { address: '127.0.0.1', port: 9 }),
  )
  return { tested, engine: tested.engine, entry: tested.listen('socks', { clients: networks(...clients) }) }
}

t.test('strangers shut nobody out', { skip: needsAddon }, async (t) => {
  const { tested, engine, entry } = hagFor(t, { maxConnections: 200 }, ['127.0.0.2'])
  const server = await echo(t)
  const strangers = Array.from({ length: 260 }, () => callFrom(t, '127.0.0.3', entry, greeting))
  for (const { over } of strangers) {
    t.match((await over).ending, reset)
  }
  t.equal(engine.stats().connections, 0)
  t.same(tested.events, [{ type: 'refused' }], 'one event for all')
  t.same(engine.takeRefusals(), [{ cause: 'not-a-client', client: '127.0.0.3', count: 260 }])
  t.same(engine.takeRefusals(), [])
  await relays(t, '127.0.0.2', entry, server)
})

t.test('a gateway hears that it is refused, and this machine reaches itself', { skip: needsAddon }, async (t) => {
  const { engine, entry } = hagFor(t, {}, ['127.0.0.2', '2001:db8::'])
  for (const protocol of ['tcp', 'mptcp'] as const) {
    const stranger = { protocol, remote: entry, bind: '127.0.0.3', connectTimeoutMs: 5000, timeoutMs: 5000 }
    // Where there is no round trip the RST may come before the connection is found to be established.
    const isTelling = ({ ok, ...why }: Awaited<ReturnType<typeof engine.probe>>) =>
      !ok && !('stage' in why && why.stage === 'connect')
    const result = await remeasure(() => engine.probe(stranger), isTelling, 20)
    t.match(result, { ok: false, stage: 'greeting', failure: { code: 'NOT_A_CLIENT' } }, protocol)
  }
  for (const bind of ['127.0.0.2', entry.address]) {
    const result = await engine.probe({ protocol: 'mptcp', remote: entry, bind, connectTimeoutMs: 5000, timeoutMs: 5000 })
    t.match(result, { ok: true }, bind)
  }
})

t.test('who asks for nothing makes room, the greediest first', { skip: needsAddon }, async (t) => {
  const max = 40
  const { tested, engine, entry } = hagFor(t, { maxConnections: max, workers: 1 }, ['127.0.0.2', '127.0.0.3', '127.0.0.4'])
  const server = await echo(t)
  const relayed = []
  for (let i = 0; i < 10; ++i) relayed.push(await relays(t, '127.0.0.2', entry, server))
  const prepared = [1, 2].map(() => callFrom(t, '127.0.0.4', entry, greeting))
  for (const { receive } of prepared) t.same([...(await receive(2))], [5, 0])
  const greedy = Array.from({ length: 60 }, () => callFrom(t, '127.0.0.3', entry, greeting))
  for (const { over } of greedy.slice(0, 32)) t.match((await over).ending, reset, 'one of its oldest')
  t.equal(engine.stats().connections, max)
  for (let i = 0; i < 6; ++i) relayed.push(await relays(t, '127.0.0.4', entry, server))
  for (const socket of [...relayed, ...prepared.map(({ socket }) => socket)]) t.equal(socket.destroyed, false)
  prepared[0]?.socket.write(requestFor(server))
  t.equal((await prepared[0]?.receive(10))?.[1], 0, 'one that greeted in advance is still good')
  t.equal(engine.takeRefusals().find(({ cause }) => cause === 'waited')?.client, '127.0.0.3')
  t.notOk(
    tested.events.some(({ type }) => type === 'limit'),
    'accepting never paused',
  )
})

t.test('a gateway that opens many at once waits for its own', { skip: needsAddon }, async (t) => {
  const { tested, engine, entry } = hagFor(t, { maxConnections: 20, workers: 1 }, ['127.0.0.2'])
  const server = await echo(t)
  for (let i = 0; i < 10; ++i) await relays(t, '127.0.0.2', entry, server)
  const callers = Array.from({ length: 18 }, () => callFrom(t, '127.0.0.2', entry, greeting))
  for (const { socket } of callers) socket.write(Buffer.concat([requestFor(server), Buffer.from('hello')]))
  // A place becomes free for each of those that wait.
  for (const { socket, receive } of callers) {
    t.equal((await receive(2 + 10 + 5)).subarray(-5).toString(), 'hello')
    socket.end()
  }
  t.same(engine.takeRefusals(), [])
  t.match(
    tested.events.filter(({ type }) => type === 'limit'),
    [{ limited: true, cause: 'connections' }, { limited: false }],
  )
})

t.test('passwords that are wrong hold no places either', { skip: needsAddon }, async (t) => {
  const tested = new EngineUnderTest(t, { maxConnections: 10, workers: 1 })
  const entry = tested.listen('socks', { authentication: true, clients: networks('127.0.0.2', '127.0.0.3') })
  tested.onEvent = (event) => {
    if (event.type === 'credentials') tested.engine.authenticate(event.connection, event.username === 'a')
  }
  const login = (user: string) => Buffer.from([5, 1, 2, 1, 1, user.charCodeAt(0), 1, 1])
  // They stay open after the answer, as long as they are let.
  const wrong = Array.from({ length: 10 }, () => callFrom(t, '127.0.0.3', entry, login('b')))
  await Promise.all(wrong.map(({ receive }) => receive(4)))
  const { receive } = callFrom(t, '127.0.0.2', entry, login('a'))
  t.same([...(await receive(4))], [5, 2, 1, 0])
  t.same(
    tested.engine.takeRefusals().find(({ cause }) => cause === 'credentials'),
    {
      cause: 'credentials',
      client: '127.0.0.3',
      count: 10,
    },
  )
  t.same([...(await callFrom(t, '127.0.0.2', entry, greeting).receive(2))], [5, 0xff])
  t.same(tested.engine.takeRefusals().find(({ cause }) => cause === 'method')?.client, '127.0.0.2')
})

t.test('one that opens without end holds up nobody', { skip: needsAddon }, async (t) => {
  const { engine, entry } = hagFor(t, { maxConnections: 16, workers: 1 }, ['127.0.0.2', '127.0.0.3'])
  const server = await echo(t)
  for (let i = 0; i < 8; ++i) await relays(t, '127.0.0.2', entry, server)
  let goesOn = true
  t.teardown(() => (goesOn = false))
  const openAgain = () => {
    if (!goesOn) return
    const { socket, over } = callFrom(t, '127.0.0.3', entry, greeting)
    socket.on('error', () => undefined)
    void over.then(() => setTimeout(openAgain, 1))
  }
  for (let i = 0; i < 100; ++i) openAgain()
  // A gateway about to ask is waited for once, not for each that comes behind.
  await settle(
    () => engine.stats().connections,
    (count) => count >= 16,
  )
  const measure = async () => {
    const started = performance.now()
    for (let i = 0; i < 6; ++i) (await relays(t, '127.0.0.2', entry, server)).destroy()
    return performance.now() - started
  }
  const ms = await remeasure(measure, (one) => one < 3000)
  goesOn = false
  t.ok(ms < 3000, `six requests take ${ms.toFixed(0)} ms`)
})

t.test('who waits at another worker makes room, too', { skip: needsAddon }, async (t) => {
  const max = 16
  const { tested, engine, entry } = hagFor(t, { maxConnections: max, workers: 4 }, ['127.0.0.2', '127.0.0.3'])
  const server = await echo(t)
  for (let i = 0; i < 12; ++i) t.same([...(await callFrom(t, '127.0.0.3', entry, greeting).receive(2))], [5, 0])
  // Each worker gets some of these by chance, some more than waited there.
  for (let i = 0; i < max; ++i) await relays(t, '127.0.0.2', entry, server)
  t.equal(engine.stats().relaying, max)
  t.notOk(
    tested.events.some(({ type }) => type === 'limit'),
    'accepting never paused',
  )
})

t.test('whose credentials were right stays before those that have proven nothing', { skip: needsAddon }, async (t) => {
  const tested = new EngineUnderTest(t, { maxConnections: 20, workers: 1 })
  const all = { authentication: true, clients: [{ address: '127.0.0.0', bits: 8 }] }
  const entry = tested.listen('socks', all)
  tested.onEvent = (event) => {
    if (event.type === 'credentials') tested.engine.authenticate(event.connection, true)
  }
  const login = Buffer.from([5, 1, 2, 1, 1, 97, 1, 1])
  const prepared = Array.from({ length: 16 }, () => callFrom(t, '127.0.0.2', entry, login))
  for (const { receive } of prepared) t.same([...(await receive(4))], [5, 2, 1, 0])
  // Each from an address of its own, so that nobody has as many as the gateway.
  const ended = Array.from({ length: 60 }, (_, i) => callFrom(t, `127.0.1.${i + 1}`, entry, login.subarray(0, 3)).over)
  for (const over of ended.slice(0, 50)) t.match((await over).ending, reset)
  for (const { socket } of prepared) t.equal(socket.destroyed, false)
})

t.test('however many clients are greedy, others find a place', { skip: needsAddon }, async (t) => {
  const limits = { maxConnections: 40, maxConnectionsPerClient: 30 }
  const server = await echo(t)
  const clients = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5']
  /** How many each of them gets that asks for more and more, one after another. */
  const placesBy = async (serves: (client: string) => Promise<boolean>) => {
    const places: number[] = []
    for (const client of clients) {
      let count = 0
      while (count < 40 && (await serves(client))) count++
      places.push(count)
    }
    return places
  }

  await t.test('of a gateway', async (t) => {
    const tested = new EngineUnderTest(t, limits)
    const entry = tested.listen('redirect')
    tested.always(() => specTo(server))
    const serves = async (client: string) => (await callFrom(t, client, entry, 'hello').receive(5)).toString() === 'hello'
    t.same(await placesBy(serves), [30, 5, 3, 1])
  })

  await t.test('of a HAG, beside those that ask for nothing', async (t) => {
    const { entry } = hagFor(t, limits, [...clients, '127.0.0.9'])
    const idle = Array.from({ length: 39 }, () => callFrom(t, '127.0.0.9', entry, greeting))
    for (const { receive } of idle) await receive(2)
    const request = Buffer.concat([greeting, requestFor(server)])
    const serves = async (client: string) => (await callFrom(t, client, entry, request).receive(12))[3] === 0
    t.same(await placesBy(serves), [30, 5, 3, 1])
  })

  await t.test('unless one may have them all', async (t) => {
    const tested = new EngineUnderTest(t, { maxConnections: 40, maxConnectionsPerClient: 40 })
    const entry = tested.listen('redirect')
    tested.always(() => specTo(server))
    const open = Array.from({ length: 40 }, () => callFrom(t, '127.0.0.2', entry, 'hello'))
    for (const { receive } of open) t.equal((await receive(5)).toString(), 'hello')
  })
})

t.test('who gave up before it was accepted is not taken for one that nothing redirected', { skip: needsAddon }, async (t) => {
  const tested = new EngineUnderTest(t, { maxConnections: 1 })
  const server = await echo(t)
  const [entry, strict] = [tested.listen('redirect'), tested.listen('redirect', { refuseLoops: true })]
  tested.always(() => specTo(server))
  t.match((await callFrom(t, '127.0.0.2', strict).over).ending, reset)
  t.match(tested.engine.takeRefusals(), [{ cause: 'not-redirected', client: '127.0.0.2' }])
  const first = callFrom(t, '127.0.0.2', entry, 'hello')
  await first.receive(5)
  const late = callFrom(t, '127.0.0.3', strict)
  late.socket.end()
  await settle(
    () => late.socket.writableFinished,
    (is) => is,
  )
  first.socket.end()
  await late.over
  t.same(tested.engine.takeRefusals(), [])
})

t.test('one client gets its share', { skip: needsAddon }, async (t) => {
  const limits = { maxConnections: 20, maxConnectionsPerClient: 4 }
  const server = await echo(t)

  await t.test('of a HAG', async (t) => {
    const { engine, entry } = hagFor(t, limits, ['127.0.0.2', '127.0.0.3'])
    const open = []
    for (let i = 0; i < 4; ++i) open.push(await relays(t, '127.0.0.2', entry, server))
    const { over } = callFrom(t, '127.0.0.2', entry, Buffer.concat([greeting, requestFor(server)]))
    const { bytes } = await over
    t.same([...bytes.subarray(0, 4)], [5, 0, 5, 2], 'greeted, so that it is not taken for dead, but not served')
    await relays(t, '127.0.0.3', entry, server)
    t.same(engine.takeRefusals(), [{ cause: 'share', client: '127.0.0.2', count: 1 }])
    open[0]?.end()
    await settle(
      () => engine.stats().relaying,
      (count) => count === 4,
    )
    await relays(t, '127.0.0.2', entry, server)
  })

  await t.test('of a gateway', async (t) => {
    const tested = new EngineUnderTest(t, limits)
    const entry = tested.listen('redirect')
    tested.always(() => specTo(server))
    const open = Array.from({ length: 4 }, () => callFrom(t, '127.0.0.2', entry, 'hello'))
    for (const { receive } of open) t.equal((await receive(5)).toString(), 'hello')
    t.match(await callFrom(t, '127.0.0.2', entry).over, { ending: 'ECONNRESET' })
    const other = callFrom(t, '127.0.0.3', entry, 'hello')
    t.equal((await other.receive(5)).toString(), 'hello')
    t.same(tested.engine.takeRefusals(), [{ cause: 'share', client: '127.0.0.2', count: 1 }])
    open[0]?.socket.end()
    await settle(
      () => tested.engine.stats().connections,
      (count) => count === 4,
    )
    const again = callFrom(t, '127.0.0.2', entry, 'hello')
    t.equal((await again.receive(5)).toString(), 'hello')
  })
})
