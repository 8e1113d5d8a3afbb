/** The control socket, asked as its users and as its enemies would. */
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { BondsocksError } from '../../src/base/errors.js'
import { ControlClient } from '../../src/control/client.js'
import { openControlSocket } from '../../src/control/socket.js'

const about = { bondsocks: '1.2.3', protocol: 1, role: 'gateway', pid: 7 } as const

/** The name of a socket has at most 107 bytes (unix(7)), and that of a test's own folder may be longer. */
function shortPath(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  return join(folder, 'gateway.sock')
}

async function open(t: Test, commands: Record<string, () => Promise<object>> = { status: async () => ({ answer: 42 }) }) {
  const listeners = new Set<(message: object) => void>()
  const listen = (listener: (message: object) => void) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  const happen = (message: object) => {
    for (const listener of listeners) listener(message)
  }
  const path = shortPath(t)
  const control = await openControlSocket({ path, about, commands, listen })
  t.teardown(() => control.close())
  return { path, control, listeners, happen }
}

/** Sends bytes as they are; all that comes back, and whether the other end closed. */
function talk(t: Test, path: string): Socket & { received: string } {
  const socket = Object.assign(connect(path), { received: '' })
  socket.setEncoding('utf8').on('data', (text) => {
    socket.received += text
  })
  socket.on('error', () => undefined)
  t.teardown(() => socket.destroy())
  return socket
}

async function until(isSo: () => boolean): Promise<void> {
  for (let left = 500; !isSo() && left > 0; left--) await sleep(10)
}

t.test('says who it is, and answers', async (t) => {
  const { path } = await open(t)
  const client = await ControlClient.connect(path)
  t.same(client?.about, about)
  t.same(await client?.ask('status'), { answer: 42 })
  t.same(await client?.ask('status'), { answer: 42 })
  client?.close()
})

t.test('is for its owner only', async (t) => {
  const { path } = await open(t)
  t.equal(statSync(path).mode & 0o777, 0o600)
})

t.test('an error of a command is an answer', async (t) => {
  const failing = async () => {
    throw new BondsocksError('BROKEN', 'it is broken')
  }
  const { path } = await open(t, { status: failing })
  const client = await ControlClient.connect(path)
  await t.rejects(client?.ask('status') ?? Promise.resolve(), { code: 'BROKEN', message: 'it is broken' })
  await t.rejects(client?.ask('reboot') ?? Promise.resolve(), {
    code: 'UNKNOWN_COMMAND',
    message: 'the commands are status, monitor',
  })
  client?.close()
})

t.test('who ends while it is asked is no system error', async (t) => {
  const path = shortPath(t)
  const accepted: Socket[] = []
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    accepted.push(socket)
    socket.write(`${JSON.stringify(about)}\n`)
  }).listen(path)
  t.teardown(() => server.close())
  await until(() => server.listening)
  const client = await ControlClient.connect(path)
  const answer = client?.ask('status') ?? Promise.resolve()
  // With the request unread: the kernel says ECONNRESET.
  setImmediate(() => accepted[0]?.destroy())
  await t.rejects(answer, { code: 'CONTROL' })
})

t.test('if the group cannot be given access, nobody listens', async (t) => {
  const path = shortPath(t)
  const options = { path, group: Number.NaN, about, commands: {}, listen: () => () => undefined }
  await t.rejects(openControlSocket(options))
  t.equal(await ControlClient.connect(path), undefined)
})

t.test('garbage is answered with an error, and the next request is served', async (t) => {
  const { path } = await open(t)
  const socket = talk(t, path)
  for (const line of [
    'hello',
    '{}',
    'null',
    '[]',
    '{"command": 5}',
    '"status"',
    '{"command": "__proto__"}',
    '{"command": "status"',
  ]) {
    socket.write(`${line}\n`)
  }
  socket.write('\n \n{"command": "sta')
  await sleep(20)
  socket.write('tus"}\n')
  await until(() => socket.received.includes('42'))
  const [hello, ...answers] = socket.received
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(hello, about)
  t.same(
    answers.map(({ error, status }) => error?.code ?? status.answer),
    [...Array(6).fill('BAD_REQUEST'), 'UNKNOWN_COMMAND', 'BAD_REQUEST', 42],
  )
})

t.test('a line without end is not collected for ever', async (t) => {
  const { path } = await open(t)
  const socket = talk(t, path)
  socket.write('x'.repeat(100_000))
  await until(() => socket.readableEnded || socket.destroyed)
  t.match(socket.received, /BAD_REQUEST.*at most 4096/)
})

t.test('who never reads holds up only himself', async (t) => {
  let asked = 0
  const { path } = await open(t, {
    async status() {
      asked++
      return { text: 'x'.repeat(1_000_000) }
    },
  })
  const deaf = talk(t, path)
  deaf.pause()
  deaf.write('{"command":"status"}\n'.repeat(1000))
  await until(() => asked > 0)
  await sleep(50)
  t.ok(asked <= 2, `it worked on ${asked} of 1000 requests whose answers nobody takes`)
  const client = await ControlClient.connect(path)
  t.match(await client?.ask('status'), { text: /^x+$/ })
  client?.close()
})

t.test('a monitor gets what happens, beside answers, until it leaves', async (t) => {
  const { path, happen, listeners } = await open(t)
  const socket = talk(t, path)
  happen({ event: 'before' })
  socket.write('{"command":"monitor"}\n{"command":"monitor"}\n')
  await until(() => listeners.size === 1)
  happen({ event: 'first' })
  socket.write('{"command":"status"}\n')
  await until(() => socket.received.includes('42'))
  happen({ event: 'second' })
  await until(() => socket.received.includes('second'))
  t.same(
    socket.received
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => JSON.parse(line)),
    [{ monitor: {} }, { monitor: {} }, { event: 'first' }, { status: { answer: 42 } }, { event: 'second' }],
  )
  socket.destroy()
  await until(() => listeners.size === 0)
  t.equal(listeners.size, 0)
})

t.test('a monitor that does not read is told what it missed, and costs little', async (t) => {
  const { path, happen, listeners } = await open(t)
  const slow = talk(t, path)
  slow.write('{"command":"monitor"}\n')
  await until(() => slow.received.includes('monitor'))
  slow.pause()
  const text = 'x'.repeat(1000)
  const before = process.memoryUsage().external + process.memoryUsage().heapUsed
  for (let number = 0; number < 50_000; number++) happen({ number, text })
  t.ok(process.memoryUsage().external + process.memoryUsage().heapUsed - before < 40e6)
  slow.resume()
  await until(() => slow.received.includes('missed'))
  happen({ number: 'last' })
  await until(() => slow.received.includes('last'))
  const all = slow.received
    .trim()
    .split('\n')
    .slice(2)
    .map((line) => JSON.parse(line))
  const told = all.filter(({ text }) => text !== undefined).length
  t.match(all.at(-1), { number: 'last' })
  t.equal(told + all.reduce((sum, { missed = 0 }) => sum + missed, 0), 50_000)
  t.ok(told > 100 && told < 5000, `${told} of 50000`)
  slow.destroy()
  await until(() => listeners.size === 0)
  t.equal(listeners.size, 0)
})

t.test('too many at once are turned away, and room is made again', async (t) => {
  const { path } = await open(t)
  const all = Array.from({ length: 32 }, () => talk(t, path))
  await until(() => all.every(({ received }) => received !== ''))
  await t.rejects(ControlClient.connect(path))
  all[0]?.destroy()
  let client: ControlClient | undefined
  for (let left = 100; client === undefined && left > 0; left--) client = await ControlClient.connect(path).catch(() => undefined)
  t.same(await client?.ask('status'), { answer: 42 })
  client?.close()
})

t.test('what a killed process has left is replaced; a living one is not', async (t) => {
  const path = shortPath(t)
  const stale = createServer().listen(path)
  await until(() => stale.listening)
  const living = await openControlSocket({ path, about, commands: {}, listen: () => () => undefined }).catch((error) => error)
  t.match(living, { code: 'EADDRINUSE' })
  stale.close()
  writeFileSync(path, '')
  chmodSync(path, 0o600)
  const control = await openControlSocket({ path, about, commands: {}, listen: () => () => undefined })
  t.same((await ControlClient.connect(path))?.about, about)
  control.close()
})

t.test('where nobody listens there is no client', async (t) => {
  t.equal(await ControlClient.connect(shortPath(t)), undefined)
})
