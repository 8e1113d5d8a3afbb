/** The client's side of SOCKS5 in the engine: its probes, other people's HAGs, and sockets in other hands. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { Socket } from 'node:net'
import { SocksClient } from 'socks'
import t from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import type { ProbeResult } from '../../src/engine/contract.js'
import { call, EngineUnderTest, echo, needsAddon, serve, specTo } from '../support/engine.js'
import { credentials, scripted, through } from '../support/handshake.js'
import { settle } from '../support/hybrid.js'
import { countDescriptors } from '../support/proc.js'
import { start } from '../support/process.js'
import { streamSlice } from '../support/stream.js'

t.test('probe', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const hag = new EngineUnderTest(t)
  hag.onEvent = (event) => {
    if (event.type === 'credentials') hag.engine.authenticate(event.connection, event.password === credentials.password)
  }
  const open = hag.listen('socks')
  const guarded = hag.listen('socks', { authentication: true })
  const probe = (remote: SocketAddress, more: object = {}) => engine.probe({ ...specTo(remote), timeoutMs: 10_000, ...more })
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
        () => tested.engine.probe({ ...specTo(hag), timeoutMs: 1000 }),
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
      t.ok((await client.received).bytes.equals(said), guarded ? 'with a password' : 'without')
      t.match(await tested.next('closed'), { reason: 'end', sent: said.length, received: said.length })
    }
  },
)

t.test('connect: a socket that the engine made, in other hands', { skip: needsAddon }, async (t) => {
  const world = await echo(t)
  const hag = new EngineUnderTest(t)
  const proxy = hag.listen('socks')
  hag.always(() => specTo(world))
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
  const received: Buffer[] = []
  socket.on('data', (data) => received.push(data))
  socket.resume().end(said)
  await once(socket, 'close')
  t.ok(Buffer.concat(received).equals(said))
  await hag.next('closed')
  const after = await settle(
    () => countDescriptors(process.pid),
    (count) => count <= before + 2,
  )
  t.ok(after <= before + 2, 'and nobody holds it any more')
})
