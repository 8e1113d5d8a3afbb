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
  const path = shortPath(t)
  const control = await openControlSocket({ path, about, commands })
  t.teardown(() => control.close())
  return { path, control }
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
  await t.rejects(client?.ask('reboot') ?? Promise.resolve(), { code: 'UNKNOWN_COMMAND', message: 'the commands are status' })
  client?.close()
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
  const living = await openControlSocket({ path, about, commands: {} }).catch((error) => error)
  t.match(living, { code: 'EADDRINUSE' })
  stale.close()
  writeFileSync(path, '')
  chmodSync(path, 0o600)
  const control = await openControlSocket({ path, about, commands: {} })
  t.same((await ControlClient.connect(path))?.about, about)
  control.close()
})

t.test('where nobody listens there is no client', async (t) => {
  t.equal(await ControlClient.connect(shortPath(t)), undefined)
})
