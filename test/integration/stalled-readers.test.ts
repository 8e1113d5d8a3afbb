/** Readers that have stopped: nobody else waits for them, although they are more than there are pipes, and they cost nothing. */
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import { type Caller, call, needsAddon, serve, specTo } from '../support/engine.js'
import { hereWith, portOf, startChild } from '../support/engine-paths.js'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { workerSeconds } from '../support/proc.js'
import { streamSlice } from '../support/stream.js'

const bytes = 1_000_000
const [stalled, others, wanted] = [160, 170, 64] as const

t.test('readers that have stopped', { skip: needsAddon }, async (t) => {
  /** The first byte of what a client says is how many million bytes it wants. */
  const source = await serve(t, (socket) => {
    socket.on('error', () => undefined)
    socket.once('data', (asked) => {
      const parts = Array.from({ length: asked[0] ?? 0 }, () => streamSlice(7, 0, bytes))
      pipeline(Readable.from(parts), socket).catch(() => undefined)
    })
  })
  const listen = { kind: 'redirect', address: '127.0.0.1', port: 0 } as const
  const child = startChild(t, hereWith(1024), { listen, spec: specTo(source) })
  const front = { address: '127.0.0.1', port: await portOf(child) }
  const callers: Caller[] = []
  // One that is being opened counts for more.
  while (callers.length < stalled + others) {
    callers.push(...Array.from({ length: 10 }, () => call(t, front)))
    await settle(
      () => child.output.match(/"opened"/g)?.length ?? 0,
      (count) => count === callers.length,
    )
  }
  const lazy = callers.splice(0, stalled)
  for (const { socket } of lazy) socket.pause().write(Buffer.from([20]))
  // Until as much as fits has come for each.
  await settle(
    () => Math.min(...lazy.map(({ socket }) => socket.bytesRead)),
    (min) => min > 0,
  )
  const ask = async (millions: number) => {
    const { socket, received } = callers.pop() as Caller
    socket.setTimeout(5000, () => socket.destroy()).write(Buffer.from([millions]))
    return received
  }

  const download = async () => {
    const started = performance.now()
    const received = await ask(wanted)
    const seconds = (performance.now() - started) / 1000
    const parts = Array.from({ length: wanted }, (_, part) => received.bytes.subarray(part * bytes, (part + 1) * bytes))
    t.ok(received.ending === 'end' && received.bytes.length === wanted * bytes, 'another reader gets all')
    t.ok(
      parts.every((part) => part.equals(streamSlice(7, 0, bytes))),
      'and as it was sent',
    )
    return wanted / seconds
  }
  const speed = await remeasure(download, (one) => one > 50)
  t.ok(speed > 50, `${speed.toFixed(0)} MB/s`)

  const small = await Promise.all(Array.from({ length: callers.length }, () => ask(1)))
  t.ok(
    small.every((received) => received.ending === 'end' && received.bytes.equals(streamSlice(7, 0, bytes))),
    `${small.length} more get theirs at the same time`,
  )
  t.notMatch(child.output, /"cause":"descriptors"/, 'nobody was kept waiting')
  t.equal(child.output.match(/"cause":"pipes"/g)?.length, 1, 'that there are too few pipes is told once')
  for (const { socket } of lazy.splice(10)) socket.destroy()
  for (const { socket } of lazy) socket.resume()
  const late = await Promise.all(lazy.map(({ received }) => received))
  t.ok(
    late.every((received) => received.ending === 'end' && received.bytes.length === 20 * bytes),
    'those that go on reading get all',
  )
})

t.test('a hundred stalled downloads cost no processor time', { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const world = await World.run(t, { shaped: false })
  const { client, lab, hag } = world
  // So that what they hold is little, and has come soon.
  for (const host of ['lan', 'cpe']) await world.execute(host)('sysctl', '-qw', 'net.ipv4.tcp_rmem=4096 131072 400000')
  const count = 100
  await client.call('stall', { host: lab.addresses.server, port: ports.source }, count, 8_000_000, 500_000)
  const measure = async () => {
    const before = workerSeconds(hag.pid)
    await sleep(2000)
    return ((workerSeconds(hag.pid) - before) / 2) * 100
  }
  const percent = await settle(measure, (one) => one < 0.25, 20_000)
  t.ok(percent < 0.25, `${percent.toFixed(3)} % of a core`)
  const { intact, seconds } = await client.call('readOn')
  t.equal(intact, count, 'and all go on when they are read again')
  t.comment(`within ${Math.max(...seconds).toFixed(1)} s`)
})
