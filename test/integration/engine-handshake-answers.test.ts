/** The client's side of SOCKS5 in the engine, against HAGs that answer whatever they like. */
import t from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import { call, EngineUnderTest, echo, needsAddon, serve, specTo } from '../support/engine.js'
import { credentials, type Handshake, handshakes, scripted, somewhere, through, yes } from '../support/handshake.js'
import { settle, sleep } from '../support/hybrid.js'
import { streamSlice } from '../support/stream.js'

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
      `${handshake}: every failure is told for what it is, and only a client whose words did not arrive gets another path`,
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
              tested.engine.dial(connection, specTo(world), 1)
              const isRefusal = ['EACCES', 'SOCKS_REPLY'].includes(failed.failure.code)
              if (handshake === 'pipelined' && !isRefusal) {
                t.match(await tested.next('closed'), { connection, reason: 'upstream-reset' })
                t.match(await client.received, { bytes: Buffer.alloc(0), ending: 'ECONNRESET' })
                continue
              }
              await tested.next('opened')
              client.socket.end()
              t.ok((await client.received).bytes.equals(said), 'nothing of what it said is lost or doubled')
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
      t.equal((await client.received).bytes.toString(), 'welcome')
      await tested.next('closed')
    })
  }

  t.test('early data of any size arrives once, after dials that failed with some of it sent', async (t) => {
    const hag = new EngineUnderTest(t)
    const entry = hag.listen('socks')
    hag.always(({ connection: _, ...event }) =>
      specTo({ address: 'host' in event ? event.host : '', port: 'port' in event ? event.port : 0 }),
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
      const { bytes: received, ending } = await client.received
      t.ok(received.equals(said), `${bytes} bytes`)
      t.equal(ending, 'end')
      t.match(await tested.next('closed'), { reason: 'end', sent: bytes, received: bytes })
    }
  })

  t.test('what a client says behind its request reaches the HAG before the reply, once, and the next HAG too', async (t) => {
    const request = 3 + 10
    /** Replies when it has heard so much behind the request, and sends it back. */
    const waiting = (bytes: number, reply: Buffer) =>
      serve(t, (socket) => {
        let received = Buffer.alloc(0)
        socket.on('data', (data) => {
          const before = received.length
          received = Buffer.concat([received, data])
          if (before >= request + bytes || received.length < request + bytes) return
          socket.end(Buffer.concat([Buffer.from([5, 0]), reply, received.subarray(request)]))
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
    t.equal((await client.received).bytes.toString(), 'one two then four')
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
