/** The whole question to a HAG, by the package socks over a socket of the engine's. */
import { createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import type { Engine } from '../../src/engine/contract.js'
import { examine, takesPipelined } from '../../src/gateway/hags/capabilities.js'
import type { Hag } from '../../src/gateway/model.js'
import { Probers } from '../../src/gateway/steering/probers.js'
import { Steer } from '../../src/gateway/steering/steer.js'
import { toLog } from '../../src/telemetry/events.js'
import { EngineUnderTest, needsAddon } from '../support/engine.js'
import { memoryLog } from '../support/memory-log.js'
import { paceOf } from '../support/pace.js'
import { settle, sleep } from '../support/wait.js'

type Answer = Buffer | undefined

/** A SOCKS server on loopback that greets, and then answers the request with these bytes, or not at all. */
async function serve(
  t: Test,
  answer: Answer | ((request: Buffer) => Answer),
  greeting: Buffer | ((offer: Buffer) => Buffer) = Buffer.from([5, 0]),
  hangsUp = false,
): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', (offer: Buffer) => {
      if (hangsUp) {
        socket.destroy()
        return
      }
      socket.write(typeof greeting === 'function' ? greeting(offer) : greeting)
      socket.once('data', (request: Buffer) => {
        const said = typeof answer === 'function' ? answer(request) : answer
        if (said !== undefined) socket.write(said)
      })
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

/** A SOCKS server that connects to itself: it parses what came, and takes the rest as payload, or loses it. */
async function serveItself(t: Test, isGreedy: boolean, hangsUpOn?: string): Promise<number> {
  const parts: [size: number, answer: Buffer][] = [
    [2, Buffer.from([5, 0])],
    [10, replyOf(0)],
    [3, Buffer.from([5, 0])],
  ]
  // Of the first greeting; there may be two.
  const methodsOf = (part: number, pending: Buffer) => (part === 0 ? (pending[1] ?? 1) : 0)
  const listening = createServer((socket) => {
    if (socket.remoteAddress === hangsUpOn) {
      socket.destroy()
      return
    }
    let pending = Buffer.alloc(0)
    let part = 0
    socket.on('error', () => {})
    socket.on('data', (data) => {
      pending = Buffer.concat([pending, data])
      for (
        let [size, answer] = parts[part] ?? [];
        size && answer && pending.length >= size + methodsOf(part, pending);
        [size, answer] = parts[++part] ?? []
      ) {
        socket.write(answer)
        pending = isGreedy ? Buffer.alloc(0) : pending.subarray(size + methodsOf(part, pending))
      }
    })
  })
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve))
  t.teardown(() => listening.close())
  return (listening.address() as { port: number }).port
}

const replyOf = (code: number) => Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0])

/** As `bondsocks hag` does, which refuses all destinations that the probes ask for. */
const ours = (offer: Buffer) => Buffer.from([5, offer.includes(0xfd) ? 0xfd : 0])

t.test('what a HAG does with a request', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const ask = (port: number, timeoutMs = 2000) =>
    examine(engine, { hag: { address: '127.0.0.1', port }, bind: '127.0.0.1' }, { timeoutMs })
  const works = { state: 'works', isRefused: false }

  t.match(await ask(await serve(t, replyOf(0))), works, 'it connects')
  for (const code of [1, 3, 4, 5, 6, 7, 8]) t.match(await ask(await serve(t, replyOf(code))), works, `reply ${code}`)
  t.match(await ask(await serve(t, replyOf(2))), { ...works, isRefused: true }, 'it allows nothing')
  t.match(await ask(await serve(t, replyOf(2), ours)), { ...works, pipelines: true }, 'which ours says to everybody')
  t.match(await ask(await serve(t, undefined), 300), { state: 'broken', trouble: /^it greets, but .*timed out/ })
  t.match(await ask(await serve(t, Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))), { state: 'broken', trouble: /^it greets/ })
  t.match(await ask(await serve(t, undefined, Buffer.from([5, 0xfe]))), { state: 'turned-away' }, 'we are no client of its')
  t.match(await ask(await serve(t, undefined, Buffer.alloc(0), true)), { state: 'turned-away' }, 'it hangs up')
  t.match(await ask(1), { state: 'unreachable' }, 'nothing listens')
})

t.test('a HAG that has nothing to say of one destination is asked for others', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const isSilentAbout = (request: Buffer) => request[3] === 1
  const port = await serve(t, (request) => (isSilentAbout(request) ? undefined : replyOf(4)))
  const target = { hag: { address: '127.0.0.1', port }, bind: '127.0.0.1' }
  t.match(await examine(engine, target, { timeoutMs: 300 }), { state: 'works', isRefused: false })
})

t.test('with credentials', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const port = await serve(t, Buffer.from([1, 1]), Buffer.from([5, 2]))
  const hag = { address: '127.0.0.1', port, username: 'me', password: 'wrong' }
  const found = await examine(engine, { hag, bind: '127.0.0.1' }, { timeoutMs: 2000 })
  t.match(found, { state: 'broken', trouble: /[Aa]uthentication failed/ })
  t.notMatch(JSON.stringify(found), /wrong/)
})

t.test('does it take all in one go?', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const ask = (port: number, timeoutMs = 10_000) =>
    takesPipelined(engine, { hag: { address: '127.0.0.1', port }, bind: '127.0.0.1' }, { timeoutMs })

  t.equal(await ask(await serveItself(t, false)), true)
  t.equal(await ask(await serveItself(t, true), 500), false, 'it hangs')
  t.equal(await ask(await serve(t, replyOf(2)), 500), false, 'it does not let itself be asked')
  t.equal(await ask(await serve(t, Buffer.from('HTTP/1.1 400 Bad Request')), 500), false)
  t.equal(await ask(1), undefined, 'nothing listens: that is not known')
})

type AskingEngine = Pick<Engine, 'probe' | 'inspect' | 'connect' | 'stats'>

const dsl = { name: 'dsl', interface: 'lo', address4: '127.0.0.2' }
const lte = { name: 'lte', interface: 'lo', address4: '127.0.0.3' }

/** Steer, and all that asks a HAG over WANs that have just been found to work; LTE is metered. */
function startProbers(hag: Hag, engine: AskingEngine, wans = [dsl, lte]) {
  const log = memoryLog()
  const did = {
    useDevices() {},
    abandon() {},
    resetConnectionsTo: async () => 0,
    resetStranded: async () => 0,
    watchConnectionsTo() {},
  }
  const steer = new Steer({
    config: { wans: wans.map((wan) => ({ ...wan, role: 'normal', metered: wan === lte })), onHagDown: 'direct' },
    engine: did,
    emit: toLog(log),
    log,
    dropEndpoints: async () => {},
    reconcile() {},
    usePaths() {},
    onChange: (before, after) => probers.wake(before, after),
  })
  const probers = new Probers({ config: { listen: { port: 1 } }, engine, pace: paceOf(), log, steer })
  steer.report({ type: 'hags-changed', hags: [{ hag, priority: '0' }] })
  steer.report({ type: 'wans-planned', wans })
  for (const { address4: bind } of wans) steer.report({ type: 'wan-answered', bind, rttMs: 30 })
  const end = new AbortController()
  const running = Promise.all(probers.run(end.signal))
  const stop = async () => {
    end.abort()
    steer.end()
    await running
  }
  const isPipelined = () => steer.state.hags[0]?.pipelines === true
  /** Or for four seconds. */
  const untilPipelined = async () => {
    await settle(isPipelined, (is) => is, 4000)
    await stop()
  }
  return { steer, log, stop, isPipelined, untilPipelined }
}

/** What a test does not do itself. */
const rest = (engine: AskingEngine): AskingEngine => ({
  probe: (probe) => engine.probe(probe),
  stats: () => engine.stats(),
  inspect: () => engine.inspect(),
  connect: (spec) => engine.connect(spec),
})

t.test('a WAN that dies while a HAG is asked does not speak for it', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const hag = { address: '127.0.0.1', port: await serveItself(t, false, dsl.address4) }
  const hub = startProbers(hag, {
    ...rest(engine),
    // The state of the WAN follows a moment after its first question.
    connect(spec) {
      if (spec.bind === dsl.address4)
        for (let times = 0; times < 3; times++)
          hub.steer.report({ type: 'wan-silent', bind: dsl.address4, reason: 'no HAG answers over it', isSure: true })
      return engine.connect(spec)
    },
  })
  await hub.untilPipelined()
  t.equal(hub.isPipelined(), true, 'the other one does')
  t.same(hub.steer.target.usableHags, [hag])
  t.notMatch(hub.log.lines.join(), /does not answer a request/)
})

t.test(
  'what babbles on the path of one WAN does not speak for a HAG that works over another',
  { skip: needsAddon },
  async (t) => {
    const { engine } = new EngineUnderTest(t)
    const babbling = await serve(t, Buffer.from('HTTP/1.1 400 Bad Request'))
    const hag = { address: '127.0.0.1', port: await serveItself(t, false) }
    const hub = startProbers(hag, {
      ...rest(engine),
      connect: (spec) =>
        engine.connect(spec.bind === dsl.address4 ? { ...spec, remote: { ...spec.remote, port: babbling } } : spec),
    })
    await hub.untilPipelined()
    t.equal(hub.isPipelined(), true)
    t.same(hub.steer.target.usableHags, [hag])
    t.notMatch(hub.log.lines.join(), /does not answer a request/)
  },
)

t.test('a HAG that was broken and cannot be reached any more is not asked without end', { skip: needsAddon }, async (t) => {
  const { engine } = new EngineUnderTest(t)
  const hag = { address: '127.0.0.1', port: await serve(t, Buffer.from('HTTP/1.1 400 Bad Request')) }
  let asked = 0
  let isGone = false
  const gone = { ok: false as const, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }
  const hub = startProbers(
    hag,
    {
      ...rest(engine),
      async connect(spec) {
        asked++
        return isGone ? gone : engine.connect(spec)
      },
    },
    [dsl],
  )
  const usable = () => hub.steer.target.usableHags
  t.same(await settle(usable, (hags) => hags.length === 0), [], 'broken')
  isGone = true
  asked = 0
  await sleep(3000)
  await hub.stop()
  t.ok(asked >= 1 && asked <= 4, `asked ${asked} times in 3 s`)
})
