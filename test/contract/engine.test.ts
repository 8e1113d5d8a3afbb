import { createServer, connect as dial, type Server, type Socket } from 'node:net'
import t from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import type { ConnectionId, Engine, EngineEvent, Native } from '../../src/engine/contract.js'
import { FakeEngine } from '../support/fake-engine.js'
import { failure } from '../support/far-side.js'
import { start } from '../support/process.js'
import { type Client, engineContract, type MakeHarness } from './engine-contract.js'

const fake: MakeHarness = async (_t, options) => {
  const accepting = { address: '198.51.100.1', port: 7 }
  const refusing = { address: '198.51.100.2', port: 7 }
  const silent = { address: '198.51.100.3', port: 7 }
  const hag = { address: '198.51.100.4', port: 1080 }
  const engine = new FakeEngine(options, {
    answer: ({ remote, connectTimeoutMs }) => {
      if (remote.address === accepting.address || remote.address === hag.address) return 'opened'
      if (remote.address === refusing.address) return failure('connect', 'ECONNREFUSED')
      const { connection, attempt } = engine.opens.at(-1) as (typeof engine.opens)[0]
      setTimeout(() => engine.answer(connection, failure('connect', 'ETIMEDOUT'), attempt), connectTimeoutMs)
      return 'silence'
    },
    connect: () => ({ ok: false, failure: { code: 'ECONNREFUSED', errno: 111, syscall: 'connect' } }),
  })
  const client = (connection: ConnectionId): Client => ({
    over: new Promise((resolve) => engine.onOver(connection, resolve)),
    end: () => engine.leave(connection, 'end'),
    abort: () => engine.leave(connection, 'client-reset'),
  })
  return {
    engine,
    accepting,
    refusing,
    silent,
    hag,
    redirected: () => client(engine.accept()),
    requesting: (host, port) => client(engine.request(host, { port })),
  }
}

const native = await import('../../src/engine/load.js').then(
  (module): Native | undefined => module.native,
  () => undefined,
)

const listening = (server: Server) => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
const portOf = (server: Server) => (server.address() as { port: number }).port

/**
 * A port on loopback that drops SYNs, as a host that is gone would: a process that never accepts, its queue filled. Made once.
 */
let silentAddress: Promise<SocketAddress> | undefined
function silentPort(): Promise<SocketAddress> {
  silentAddress ??= (async () => {
    const script = `
      const server = require('net').createServer().listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => {
        require('fs').writeSync(1, server.address().port + '\\n')
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000)
      })`
    const program = start(t, [process.execPath, '-e', script])
    const port = Number((await program.waitFor(/^(\d+)\n/))[1])
    const fillers = Array.from({ length: 4 }, () => dial({ host: '127.0.0.1', port }).on('error', () => undefined))
    t.teardown(() => {
      for (const filler of fillers) filler.destroy()
      return program.end('SIGKILL')
    })
    // A queue of one holds two (net/sock.h, sk_acceptq_is_full); the others find it full.
    let held = 0
    await new Promise<void>((resolve) => {
      for (const filler of fillers) filler.once('connect', () => ++held === 2 && resolve())
    })
    await new Promise((resolve) => setTimeout(resolve, 100))
    return { address: '127.0.0.1', port }
  })()
  return silentAddress
}

/** On loopback, where a `redirect` listener reports itself as the destination. */
const real: MakeHarness = async (t, options) => {
  const engine = new (native as Native).Engine({
    workers: 2,
    maxConnections: 100,
    idleTimeoutMs: 60_000,
    handshakeTimeoutMs: 20_000,
    ...options,
  })
  const redirect = engine.listen({ kind: 'redirect', address: '127.0.0.1', port: 0 })
  const socks = engine.listen({ kind: 'socks', address: '127.0.0.1', port: 0 })
  const hagEngine: Engine = new (native as Native).Engine({
    workers: 1,
    maxConnections: 100,
    idleTimeoutMs: 10_000,
    handshakeTimeoutMs: 2000,
    onEvents: (events) => {
      for (const event of events) {
        if (event.type !== 'request') continue
        const remote = { address: event.host, port: event.port }
        hagEngine.dial(event.connection, { protocol: 'tcp', remote, connectTimeoutMs: 2000 })
      }
    },
  })
  const hag = hagEngine.listen({ kind: 'socks', address: '127.0.0.1', port: 0 })
  t.teardown(() => hagEngine.close())
  const sockets = new Set<Socket>()
  const track = (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    return socket
  }
  const far = createServer((socket) => track(socket).resume())
  await listening(far)
  // The discard service: nobody has one, and nobody gets this port by chance.
  const refusing = { address: '127.0.0.1', port: 9 }
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    far.close()
  })

  const client = (socket: Socket, isSocks: boolean): Client => {
    let received = Buffer.alloc(0)
    track(socket).on('data', (data: Buffer) => {
      received = Buffer.concat([received, data])
    })
    const over = new Promise<'end' | 'reset' | number>((resolve) => {
      socket.on('error', () => resolve('reset'))
      // Method selection is two bytes; the reply's second byte is the code (RFC 1928 section 6).
      socket.on('end', () => resolve(isSocks ? (received[3] ?? -1) : 'end'))
    })
    return { over, end: () => socket.end(), abort: () => socket.resetAndDestroy() }
  }
  return {
    engine,
    hag,
    accepting: { address: '127.0.0.1', port: portOf(far) },
    refusing,
    silent: await silentPort(),
    redirected: () => client(dial({ ...redirect, host: redirect.address }), false),
    requesting: (host, port) => {
      const socket = dial({ port: socks.port, host: socks.address })
      const name = Buffer.from(host)
      socket.write(Buffer.concat([Buffer.from([5, 1, 0, 5, 1, 0, 3, name.length]), name, Buffer.from([port >> 8, port & 255])]))
      return client(socket, true)
    },
  }
}

engineContract(t, 'fake', fake)
if (native?.Engine === undefined) t.test('real', { skip: 'the addon is not built' }, async () => undefined)
else engineContract(t, 'real', real)

t.test(
  'what the callback throws loses no event',
  { skip: native?.Engine === undefined && 'the addon is not built' },
  async (t) => {
    const thrown: unknown[] = []
    const others = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    process.on('uncaughtException', (error) => thrown.push(error))
    t.teardown(() => {
      process.removeAllListeners('uncaughtException')
      for (const listener of others) process.on('uncaughtException', listener)
    })
    const accepted: EngineEvent[] = []
    const engine = new (native as Native).Engine({
      workers: 2,
      maxConnections: 2000,
      idleTimeoutMs: 60_000,
      handshakeTimeoutMs: 20_000,
      onEvents: (events) => {
        accepted.push(...events.filter(({ type }) => type === 'accepted'))
        // A pending exception would also keep the addon from answering this.
        void engine.inspect()
        throw new Error('a fault of the owner')
      },
    })
    t.teardown(() => engine.close())
    const { address, port } = engine.listen({ kind: 'redirect', address: '127.0.0.1', port: 0 })
    const clients = Array.from({ length: 600 }, () => dial({ host: address, port }).on('error', () => undefined))
    t.teardown(() => {
      for (const client of clients) client.destroy()
    })
    // More than one call's worth of events wait when the owner gets to them.
    const until = performance.now() + 300
    while (performance.now() < until);
    for (let tries = 0; tries < 200 && accepted.length < clients.length; tries++)
      await new Promise((resolve) => setTimeout(resolve, 50))
    t.equal(accepted.length, clients.length)
    t.same(await engine.inspect(), [], 'and it still answers')
    t.ok(thrown.length > 0 && thrown.every((error) => /a fault of the owner/.test(String(error))))
  },
)
