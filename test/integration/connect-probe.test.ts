/** The whole question to a HAG, by the package socks over a socket of the engine's. */
import { createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { asksForConnect, takesPipelined } from '../../src/wan/probe.js'
import { EngineUnderTest, needsAddon } from '../support/engine.js'

/** A SOCKS server on loopback that greets, and then answers the request with these bytes, or not at all. */
async function serve(t: Test, answer: Buffer | undefined, greeting = Buffer.from([5, 0])): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.write(greeting)
      socket.once('data', () => answer !== undefined && socket.write(answer))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

const replyOf = (code: number) => Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0])

t.test('what a HAG does with a request', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const ask = (port: number, protocol: 'tcp' | 'mptcp' = 'tcp', timeoutMs = 10_000) =>
    asksForConnect(engine, { hag: { address: '127.0.0.1', port }, bind: '127.0.0.1' }, { protocol, timeoutMs })

  t.equal(await ask(await serve(t, replyOf(0))), undefined, 'it connects')
  t.equal(await ask(await serve(t, replyOf(2))), undefined, 'it refuses, and says so')
  t.equal(await ask(await serve(t, replyOf(0)), 'mptcp'), undefined, 'over an MPTCP socket')
  t.match(await ask(await serve(t, undefined), 'tcp', 500), /^it greets, but does not answer a request: .*timed out/)
  t.match(await ask(await serve(t, Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))), /^it greets, but does not answer a request/)
  t.equal(await ask(1), 'unreachable', 'nothing listens')
})

t.test('with credentials', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const port = await serve(t, Buffer.from([1, 1]), Buffer.from([5, 2]))
  const hag = { address: '127.0.0.1', port, username: 'me', password: 'wrong' }
  const trouble = await asksForConnect(engine, { hag, bind: '127.0.0.1' }, { protocol: 'tcp', timeoutMs: 10_000 })
  t.match(trouble, /[Aa]uthentication failed/)
  t.notMatch(trouble, /wrong/)
})

t.test('does it take all in one go?', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const ask = (port: number, timeoutMs = 10_000) =>
    takesPipelined(engine, { hag: { address: '127.0.0.1', port }, bind: '127.0.0.1' }, { timeoutMs })

  /** A SOCKS server that connects to itself: it parses what came, and takes the rest as payload, or loses it. */
  const server = async (isGreedy: boolean) => {
    const listening = createServer((socket) => {
      let pending = Buffer.alloc(0)
      let greeted = false
      socket.on('error', () => {})
      socket.on('data', (data) => {
        pending = Buffer.concat([pending, data])
        if (!greeted && pending.length >= 3) {
          greeted = true
          socket.write(Buffer.from([5, 0]))
          pending = isGreedy ? Buffer.alloc(0) : pending.subarray(3)
        }
        if (greeted && pending.length >= 13) {
          socket.write(replyOf(0))
          socket.write(Buffer.from([5, 0]))
        }
      })
    })
    await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve))
    t.teardown(() => listening.close())
    return (listening.address() as { port: number }).port
  }
  t.equal(await ask(await server(false)), true)
  t.equal(await ask(await server(true), 500), false, 'it hangs')
  t.equal(await ask(await serve(t, replyOf(2)), 500), false, 'it does not let itself be asked')
  t.equal(await ask(await serve(t, Buffer.from('HTTP/1.1 400 Bad Request')), 500), false)
  t.equal(await ask(1), false, 'nothing listens')
})
