/** Both sides of SOCKS5 in the engine, against scripted peers, other people's programs, and itself. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { Socket } from 'node:net'
import { SocksClient } from 'socks'
import t from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import type { DialSpec, ProbeResult } from '../../src/engine/contract.js'
import { call, EngineUnderTest, echo, needsAddon, serve, wayTo } from '../support/engine.js'
import { settle, sleep } from '../support/hybrid.js'
import type { Scope } from '../support/namespaces.js'
import { countDescriptors } from '../support/proc.js'
import { start } from '../support/process.js'
import { streamSlice } from '../support/stream.js'

type Handshake = NonNullable<DialSpec['socks']>['handshake']
const handshakes: Handshake[] = ['sequential', 'pipelined']
const credentials = { username: 'home', password: 'open sesame' }

/** A way through a HAG to `destination`. */
const through = (hag: SocketAddress, destination: SocketAddress, handshake: Handshake, more: object = {}): DialSpec =>
  wayTo(hag, { socks: { host: destination.address, port: destination.port, handshake, timeoutMs: 10_000, ...more } })

const somewhere = { address: '192.0.2.1', port: 80 }
const yes = Buffer.from([5, 0, 0, 1, 192, 0, 2, 9, 0, 80])

/**
 * A HAG that says its lines, each one after it heard something; a client that sends all at once is waited for only once. Then it does
 * what `then` says.
 */
function scripted(
  scope: Scope,
  lines: Buffer[],
  then: 'close' | 'reset' | 'silence',
  { handshake = 'pipelined', cut = false }: { handshake?: Handshake; cut?: boolean } = {},
): Promise<SocketAddress> {
  const say = async (socket: Socket, bytes: Buffer) => {
    if (!cut) {
      socket.write(bytes)
      return
    }
    for (const byte of bytes) {
      socket.write(Buffer.from([byte]))
      await sleep(2)
    }
  }
  return serve(scope, async (socket) => {
    socket.pause()
    for (const [at, line] of lines.entries()) {
      // What a pipelining client sent stays unread behind the first message, as in servers that read message by message.
      if (socket.readableLength === 0 && (at === 0 || handshake === 'sequential'))
        await new Promise((resolve) => socket.once('readable', resolve))
      if (at > 0) socket.read()
      await say(socket, line)
    }
    if (lines.length === 0) await new Promise((resolve) => socket.once('readable', resolve))
    if (then === 'close') socket.destroy()
    if (then === 'reset') setImmediate(() => socket.resetAndDestroy())
  })
}

const answers: {
  what: string
  lines: number[][]
  ending?: 'silence'
  failed: { stage: string; failure: { code: string }; reply?: number }
}[] = [
  {
    what: 'no SOCKS5 at all',
    lines: [[...Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')]],
    failed: { stage: 'greeting', failure: { code: 'EPROTO' } },
  },
  { what: 'no acceptable method', lines: [[5, 255]], failed: { stage: 'greeting', failure: { code: 'EACCES' } } },
  { what: 'a method nobody offered', lines: [[5, 1]], failed: { stage: 'greeting', failure: { code: 'EPROTO' } } },
  { what: 'half a greeting', lines: [[5]], failed: { stage: 'greeting', failure: { code: 'ECONNRESET' } } },
  {
    what: 'refused credentials',
    lines: [
      [5, 2],
      [1, 1],
    ],
    failed: { stage: 'authentication', failure: { code: 'EACCES' } },
  },
  {
    what: 'an authentication of another version',
    lines: [
      [5, 2],
      [5, 0],
    ],
    failed: { stage: 'authentication', failure: { code: 'EPROTO' } },
  },
  {
    what: 'a refused request',
    lines: [
      [5, 2],
      [1, 0],
      [5, 4, 0, 1, 0, 0, 0, 0, 0, 0],
    ],
    failed: { stage: 'request', failure: { code: 'SOCKS_REPLY' }, reply: 4 },
  },
  {
    what: 'a refusal with a domain name',
    lines: [
      [5, 2],
      [1, 0],
      [5, 2, 0, 3, 3, 97, 46, 98, 0, 0],
    ],
    failed: { stage: 'request', failure: { code: 'SOCKS_REPLY' }, reply: 2 },
  },
  {
    what: 'a reply with an unknown address type',
    lines: [
      [5, 2],
      [1, 0],
      [5, 0, 0, 9, 0, 0],
    ],
    failed: { stage: 'request', failure: { code: 'EPROTO' } },
  },
  {
    what: 'half a reply',
    lines: [
      [5, 2],
      [1, 0],
      [5, 0, 0, 1, 1, 2],
    ],
    failed: { stage: 'request', failure: { code: 'ECONNRESET' } },
  },
  { what: 'silence', lines: [], ending: 'silence', failed: { stage: 'greeting', failure: { code: 'ETIMEDOUT' } } },
  {
    what: 'silence after the method',
    lines: [[5, 2]],
    ending: 'silence',
    failed: { stage: 'authentication', failure: { code: 'ETIMEDOUT' } },
  },
]

t.test('SOCKS5 client: what a HAG may answer', { skip: needsAddon }, async (t) => {
  const tested = new EngineUnderTest(t)
  const front = tested.listen('redirect')
  const world = await echo(t)
  for (const handshake of handshakes) {
    t.test(
      `${handshake}: every failure is told for what it is, and only a client who was not heard goes another way`,
      async (t) => {
        for (const { what, lines, ending: only, failed } of answers) {
          for (const ending of only ? [only] : (['close', 'reset'] as const)) {
            for (const cut of [false, true]) {
              const hag = await scripted(
                t,
                lines.map((line) => Buffer.from(line)),
                ending,
                { handshake, cut },
              )
              const said = streamSlice(1, 0, 5000)
              const client = call(t, front, said)
              const { connection } = await tested.next('accepted')
              // What it says must be there when the HAG is asked, or it is one that has said nothing.
              await settle(
                () => client.socket.connecting || client.socket.writableLength > 0,
                (isSaying) => !isSaying,
              )
              tested.engine.dial(
                connection,
                through(hag, somewhere, handshake, { ...credentials, timeoutMs: only ? 600 : 10_000 }),
              )
              t.match(await tested.next('failed'), failed, `${what}${cut ? ', byte by byte' : ''}, then ${ending}`)
              tested.engine.dial(connection, wayTo(world), 1)
              const isRefusal = ['EACCES', 'SOCKS_REPLY'].includes(failed.failure.code)
              if (handshake === 'pipelined' && !isRefusal) {
                t.match(await tested.next('closed'), { connection, reason: 'upstream-reset' })
                t.match(await client.heard, { bytes: Buffer.alloc(0), ending: 'ECONNRESET' })
                continue
              }
              await tested.next('opened')
              client.socket.end()
              t.ok((await client.heard).bytes.equals(said), 'nothing of what it said is lost or doubled')
              await tested.next('closed')
            }
          }
        }
      },
    )

    t.test(`${handshake}: payload right behind the reply is the client's`, async (t) => {
      const method = Buffer.from([5, 0])
      const lines =
        handshake === 'pipelined'
          ? [Buffer.concat([method, yes, Buffer.from('welcome')])]
          : [method, Buffer.concat([yes, Buffer.from('welcome')])]
      const hag = await scripted(t, lines, 'silence', { handshake })
      const client = call(t, front)
      tested.engine.dial((await tested.next('accepted')).connection, through(hag, somewhere, handshake))
      await tested.next('opened')
      const settled = await settle(
        () => client.socket.bytesRead,
        (bytes) => bytes >= 7,
      )
      client.socket.resetAndDestroy()
      t.equal(settled, 7)
      t.equal((await client.heard).bytes.toString(), 'welcome')
      await tested.next('closed')
    })
  }

  t.test('early data of any size arrives once, after ways that failed with some of it sent', async (t) => {
    const hag = new EngineUnderTest(t)
    const entry = hag.listen('socks')
    hag.always(({ connection: _, ...event }) =>
      wayTo({ address: 'host' in event ? event.host : '', port: 'port' in event ? event.port : 0 }),
    )
    const refusing = await scripted(t, [Buffer.from([5, 0]), Buffer.from([5, 1, 0, 1, 0, 0, 0, 0, 0, 0])], 'reset')
    for (const bytes of [0, 1, 1000, 16_383, 16_384, 16_385, 60_000, 400_000]) {
      const said = streamSlice(2, 0, bytes)
      const client = call(t, front, said)
      client.socket.end()
      const { connection } = await tested.next('accepted')
      await sleep(20)
      for (let attempt = 0; attempt < 2; attempt++) {
        tested.engine.dial(connection, through(refusing, world, 'pipelined'))
        t.match(await tested.next('failed'), { stage: 'request', reply: 1 })
      }
      tested.engine.dial(connection, through(entry, world, 'pipelined'))
      const { bytes: heard, ending } = await client.heard
      t.ok(heard.equals(said), `${bytes} bytes`)
      t.equal(ending, 'end')
      t.match(await tested.next('closed'), { reason: 'end', sent: bytes, received: bytes })
    }
  })

  t.test('what a client says behind its request reaches the HAG before the reply, once, and the next HAG too', async (t) => {
    const request = 3 + 10
    /** Replies when it has heard so much behind the request, and sends it back. */
    const waiting = (bytes: number, reply: Buffer) =>
      serve(t, (socket) => {
        let heard = Buffer.alloc(0)
        socket.on('data', (data) => {
          const before = heard.length
          heard = Buffer.concat([heard, data])
          if (before >= request + bytes || heard.length < request + bytes) return
          socket.end(Buffer.concat([Buffer.from([5, 0]), reply, heard.subarray(request)]))
        })
      })
    const client = call(t, front, Buffer.from('one '))
    const { connection } = await tested.next('accepted')
    tested.engine.dial(
      connection,
      through(await waiting(12, Buffer.from([5, 1, 0, 1, 0, 0, 0, 0, 0, 0])), somewhere, 'pipelined'),
    )
    for (const word of ['two ', 'then']) {
      await sleep(50)
      client.socket.write(word)
    }
    t.match(await tested.next('failed'), { stage: 'request', reply: 1 })
    tested.engine.dial(connection, through(await waiting(17, yes), somewhere, 'pipelined'))
    await sleep(50)
    client.socket.write(' four')
    t.equal((await client.heard).bytes.toString(), 'one two then four')
    client.socket.end()
    await tested.next('closed')
  })

  t.test("a HAG's time counts from what last came through", async (t) => {
    const timeoutMs = 500
    /** Says these answers, each so much after the one before. */
    const slow = (pauseMs: number, ...lines: (number[] | Buffer)[]) =>
      serve(t, async (socket) => {
        socket.resume()
        for (const line of lines) {
          await sleep(pauseMs)
          socket.write(Buffer.from(line))
        }
      })
    /** How an attempt ended, and after how long; the client says a word every 100 ms, so many. */
    const outcome = async (hag: SocketAddress, handshake: Handshake, words: number) => {
      const client = call(t, front)
      const { connection } = await tested.next('accepted')
      const startedAt = performance.now()
      tested.engine.dial(connection, through(hag, somewhere, handshake, { ...credentials, timeoutMs }))
      for (let word = 0; word < words && !client.socket.destroyed; word++) {
        client.socket.write('word')
        await sleep(100)
      }
      const over = () => tested.events.find(({ type }) => type === 'opened' || type === 'failed')
      const type = (await settle(over, (event) => event !== undefined))?.type
      const ms = performance.now() - startedAt
      tested.engine.reset(connection)
      await tested.next('closed')
      tested.events.length = 0
      return { type, ms }
    }
    const answers = [[5, 2], [1, 0], yes]
    t.match(await outcome(await slow(350, ...answers), 'sequential', 0), { type: 'opened' }, 'each of its answers in time')
    t.match(await outcome(await slow(1200, Buffer.concat(answers.map((one) => Buffer.from(one)))), 'pipelined', 12), {
      type: 'opened',
    })
    const silent = await outcome(await slow(0), 'pipelined', 1)
    t.equal(silent.type, 'failed')
    t.ok(silent.ms >= 500 && silent.ms < 1000, `nothing comes through: ${silent.ms.toFixed(0)} ms`)
    const never = await outcome(await slow(0), 'pipelined', 200)
    t.equal(never.type, 'failed', 'whatever is acknowledged, not for ever')
  })

  t.test('a client that is gone before it was accepted has an address all the same', async (t) => {
    const tested = new EngineUnderTest(t)
    const front = tested.listen('redirect')
    for (let i = 0; i < 50; i++) {
      const { socket } = call(t, front)
      await new Promise((resolve) => socket.once('connect', resolve))
      socket.resetAndDestroy()
    }
    const clients = new Map<number, SocketAddress>()
    for (let i = 0; i < 50; i++) {
      const { connection, client } = await tested.next('accepted')
      clients.set(connection, client)
      if (client.address !== '127.0.0.1' || client.port === 0) t.same(client, 'an address and a port')
    }
    for (let i = 0; i < 50; i++) {
      const { connection, reason, client } = await tested.next('closed')
      if (reason !== 'client-reset') t.equal(reason, 'client-reset')
      if (clients.get(connection)?.port !== client.port) t.same(client, clients.get(connection))
    }
    t.equal(clients.size, 50)
  })
})

t.test('probe', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const hag = new EngineUnderTest(t)
  hag.onEvent = (event) => {
    if (event.type === 'credentials') hag.engine.authenticate(event.connection, event.password === credentials.password)
  }
  const open = hag.listen('socks')
  const guarded = hag.listen('socks', { authentication: true })
  const probe = (remote: SocketAddress, more: object = {}) => engine.probe({ ...wayTo(remote), timeoutMs: 10_000, ...more })
  const failed = (stage: string, code: string) => ({ ok: false, stage, failure: { code } }) as unknown as ProbeResult
  t.match(await probe(open), { ok: true, protocol: 'tcp', local: { address: '127.0.0.1' } })
  t.match(await probe(guarded, credentials), { ok: true })
  t.match(await probe(open, { bind: '127.0.0.5' }), { ok: true, local: { address: '127.0.0.5' } })
  t.match(await probe(guarded, { ...credentials, password: 'wrong' }), failed('authentication', 'EACCES'))
  t.match(await probe(guarded), failed('greeting', 'EACCES'))
  t.match(await probe(await scripted(t, [], 'silence'), { timeoutMs: 150 }), failed('greeting', 'ETIMEDOUT'))
  t.match(await probe({ address: '127.0.0.1', port: 1 }), failed('connect', 'ECONNREFUSED'))
  t.match(await probe(open, { bind: '192.0.2.200' }), failed('connect', 'EADDRNOTAVAIL'))
})

t.test(
  'SOCKS5 client with microsocks as the HAG',
  { skip: needsAddon || (!existsSync('/usr/bin/microsocks') && 'needs microsocks') },
  async (t) => {
    const world = await echo(t)
    const tested = new EngineUnderTest(t)
    const front = tested.listen('redirect')
    for (const guarded of [false, true]) {
      const free = await serve(t, () => undefined)
      const hag = { address: '127.0.0.2', port: free.port }
      start(t, [
        'microsocks',
        '-i',
        hag.address,
        '-p',
        String(hag.port),
        ...(guarded ? ['-u', credentials.username, '-P', credentials.password] : []),
      ])
      await settle(
        () => tested.engine.probe({ ...wayTo(hag), timeoutMs: 1000 }),
        (result) => result.ok || result.stage !== 'connect',
      )
      const said = streamSlice(3, 0, 300_000)
      const client = call(t, front, said)
      const { connection } = await tested.next('accepted')
      if (guarded) {
        tested.engine.dial(connection, through(hag, world, 'sequential', { ...credentials, password: 'wrong' }))
        t.match(await tested.next('failed'), { stage: 'authentication', failure: { code: 'EACCES' } })
      }
      tested.engine.dial(connection, through(hag, world, 'sequential', guarded ? credentials : {}))
      // It knows no half-close: the client ends last.
      await settle(
        () => client.socket.bytesRead,
        (bytes) => bytes >= said.length,
      )
      client.socket.end()
      t.ok((await client.heard).bytes.equals(said), guarded ? 'with a password' : 'without')
      t.match(await tested.next('closed'), { reason: 'end', sent: said.length, received: said.length })
    }
  },
)

t.test('SOCKS5 server', { skip: needsAddon }, async (t) => {
  const world = await echo(t)
  const world6 = await echo(t, '::1')
  const start = (handshakeTimeoutMs: number) => {
    const tested = new EngineUnderTest(t, { handshakeTimeoutMs })
    tested.onEvent = (event) => {
      if (event.type === 'credentials') tested.engine.authenticate(event.connection, event.password === credentials.password)
      if (event.type === 'failed') tested.engine.refuse(event.connection, 1)
      if (event.type !== 'request') return
      // Noise may ask for any address: nothing of it may leave the machine.
      const address = { 'echo.example': world.address, [world.address]: world.address, '::1': '::1' }[event.host]
      if (address === undefined) tested.engine.refuse(event.connection, 2)
      else tested.engine.dial(event.connection, wayTo({ address, port: event.port }))
    }
    return { tested, proxy: tested.listen('socks', { authentication: true }) }
  }
  const { proxy } = start(20_000)

  t.test('the `socks` package as the client: IPv4, IPv6, a domain name, a wrong password', async (t) => {
    const connect = (destination: { host: string; port: number }, password = credentials.password) =>
      SocksClient.createConnection({
        command: 'connect',
        destination,
        timeout: 15_000,
        proxy: { host: proxy.address, port: proxy.port, type: 5, userId: credentials.username, password },
      })
    for (const { host, port } of [
      { host: world.address, port: world.port },
      { host: '::1', port: world6.port },
      { host: 'echo.example', port: world.port },
    ]) {
      const { socket } = await connect({ host, port })
      const answer = new Promise((resolve) => socket.once('data', (data: Buffer) => resolve(data.toString())))
      socket.write(`to ${host}`)
      t.equal(await answer, `to ${host}`)
      socket.destroy()
    }
    await t.rejects(connect({ host: world.address, port: world.port }, 'wrong'), /[Aa]uthentication/)
  })

  const request = Buffer.from([5, 1, 0, 1, 127, 0, 0, 1, world.port >> 8, world.port & 255])
  const text = (value: string) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)])
  const handshake = Buffer.concat([Buffer.from([5, 2, 0, 2, 1]), text(credentials.username), text(credentials.password), request])
  /** Method, status, and a reply with an IPv4 address. */
  const answerBytes = 2 + 2 + 10

  t.test('all in one go or cut anywhere, payload behind the request is not lost', async (t) => {
    for (let cut = 0; cut <= handshake.length; cut++) {
      const said = Buffer.concat([handshake, streamSlice(4, 0, 3000)])
      const client = call(t, proxy, said.subarray(0, cut))
      await sleep(1)
      client.socket.end(said.subarray(cut))
      const { bytes, ending } = await client.heard
      const intact = bytes.subarray(answerBytes).equals(streamSlice(4, 0, 3000)) && bytes[answerBytes - 9] === 0
      if (!intact || ending !== 'end') t.fail(`cut at ${cut}: ${ending}, ${bytes.length} bytes`)
    }
    t.pass('every cut')
  })

  const { tested, proxy: impatient } = start(1000)
  t.test('noise: no client brings it down, none stays', async (t) => {
    let state = 1928
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return Math.floor((state / 2 ** 32) * below)
    }
    const callers = Array.from({ length: 300 }, async () => {
      const bytes = Buffer.from(handshake)
      for (let changes = random(4); changes > 0; changes--) bytes[random(bytes.length)] = random(256)
      const said = Buffer.concat([
        bytes.subarray(0, random(bytes.length + 1)),
        Buffer.from(Array.from({ length: random(40) }, () => random(256))),
      ])
      const client = call(t, impatient)
      for (let at = 0; at < said.length; ) {
        const length = 1 + random(said.length)
        client.socket.write(said.subarray(at, at + length))
        at += length
        await sleep(random(4))
      }
      const how = random(3)
      if (how === 0) client.socket.end()
      if (how === 1) client.socket.resetAndDestroy()
      await Promise.race([client.heard, sleep(600)])
      client.socket.destroy()
    })
    await Promise.all(callers)
    t.equal(
      await settle(
        () => tested.engine.stats().connections,
        (count) => count === 0,
      ),
      0,
    )
    const client = call(t, impatient, Buffer.concat([handshake, Buffer.from('still there')]))
    client.socket.end()
    t.equal((await client.heard).bytes.subarray(answerBytes).toString(), 'still there')
  })

  t.test('a slow client is closed, and a refused one gets its reply although it sent more', async (t) => {
    // The ends of those before it are told within 5 ms.
    await sleep(50)
    tested.events.length = 0
    await call(t, impatient, Buffer.from([5])).heard
    t.match(await tested.next('closed'), { reason: 'handshake', failure: { code: 'ETIMEDOUT' } })
    // Its name and password may take as long again.
    const slow = call(t, impatient)
    await sleep(150)
    slow.socket.write(Buffer.from([5, 1, 2]))
    await sleep(150)
    slow.socket.write(Buffer.from([1, 1, 97, 1, 98]))
    t.same([...(await slow.heard).bytes], [5, 2, 1, 1])
    t.match(await tested.next('closed'), { reason: 'refused' })
    const unguarded = tested.listen('socks')
    tested.onEvent = (event) => event.type === 'request' && tested.engine.refuse(event.connection, 2)
    const { bytes, ending } = await call(t, unguarded, Buffer.concat([Buffer.from([5, 1, 0]), request, Buffer.alloc(100_000)]))
      .heard
    t.equal(ending, 'end')
    t.same([...bytes.subarray(0, 4)], [5, 0, 5, 2])
  })
})

t.test('connect: a socket that the engine made, in other hands', { skip: needsAddon }, async (t) => {
  const world = await echo(t)
  const hag = new EngineUnderTest(t)
  const proxy = hag.listen('socks')
  hag.always(() => wayTo(world))
  const cpe = new EngineUnderTest(t)
  const before = countDescriptors(process.pid)
  const { protocol } = hag.engine.listen({ kind: 'socks', address: '127.0.0.1', port: 0 })
  const connected = await cpe.engine.connect({ protocol: 'mptcp', remote: proxy, bind: '127.0.0.3', connectTimeoutMs: 10_000 })
  if (!connected.ok) throw new Error(connected.failure.code)
  t.equal(connected.protocol, protocol, 'MPTCP, where this kernel has it')
  t.ok(connected.connectMs < 10_000)
  cpe.engine.close() // which leaves it alone
  const socket = new Socket({ fd: connected.fd })
  t.equal(socket.localAddress, '127.0.0.3')
  const options = {
    command: 'connect',
    existing_socket: socket,
    proxy: { host: proxy.address, port: proxy.port, type: 5 },
  } as const
  await SocksClient.createConnection({ ...options, destination: { host: world.address, port: world.port } })
  const said = streamSlice(9, 0, 300_000)
  const heard: Buffer[] = []
  socket.on('data', (data) => heard.push(data))
  socket.resume().end(said)
  await once(socket, 'close')
  t.ok(Buffer.concat(heard).equals(said))
  await hag.next('closed')
  const after = await settle(
    () => countDescriptors(process.pid),
    (count) => count <= before + 2,
  )
  t.ok(after <= before + 2, 'and nobody holds it any more')
})
