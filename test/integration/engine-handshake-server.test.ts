/** The server's side of SOCKS5 in the engine, against other people's clients and noise. */
import { SocksClient } from 'socks'
import t from 'tap'
import { call, EngineUnderTest, echo, needsAddon, specTo } from '../support/engine.js'
import { credentials } from '../support/handshake.js'
import { settle, sleep } from '../support/hybrid.js'
import { streamSlice } from '../support/stream.js'

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
      else tested.engine.dial(event.connection, specTo({ address, port: event.port }))
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
      const { bytes, ending } = await client.received
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
      await Promise.race([client.received, sleep(600)])
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
    t.equal((await client.received).bytes.subarray(answerBytes).toString(), 'still there')
  })

  t.test('a slow client is closed, and a refused one gets its reply although it sent more', async (t) => {
    // The ends of those before it are told within 5 ms.
    await sleep(50)
    tested.events.length = 0
    await call(t, impatient, Buffer.from([5])).received
    t.match(await tested.next('closed'), { reason: 'handshake', failure: { code: 'ETIMEDOUT' } })
    // Its name and password may take as long again.
    const slow = call(t, impatient)
    await sleep(150)
    slow.socket.write(Buffer.from([5, 1, 2]))
    await sleep(150)
    slow.socket.write(Buffer.from([1, 1, 97, 1, 98]))
    t.same([...(await slow.received).bytes], [5, 2, 1, 1])
    t.match(await tested.next('closed'), { reason: 'refused' })
    const unguarded = tested.listen('socks')
    tested.onEvent = (event) => event.type === 'request' && tested.engine.refuse(event.connection, 2)
    const { bytes, ending } = await call(t, unguarded, Buffer.concat([Buffer.from([5, 1, 0]), request, Buffer.alloc(100_000)]))
      .received
    t.equal(ending, 'end')
    t.same([...bytes.subarray(0, 4)], [5, 0, 5, 2])
  })
})
