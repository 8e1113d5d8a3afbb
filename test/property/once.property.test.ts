/**
 * Whatever HAGs do with a request, and whenever they die, its server hears it at most once, and its client gets the answer or a RST. The
 * real engine and sessions between clients, scripted HAGs and a server, on loopback.
 */
import { connect, type Socket } from 'node:net'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import { PathTable } from '../../src/gateway/connections/path-table.js'
import { Bypass } from '../../src/gateway/connections/policy.js'
import { Sessions } from '../../src/gateway/connections/session.js'
import { call, EngineUnderTest, needsAddon, serve } from '../support/engine.js'
import { sleep } from '../support/hybrid.js'
import { memoryLog } from '../support/memory-log.js'
import { pathsOf } from '../support/steering.js'

/** What a HAG does with each connection: it serves it until it has come so far, and then dies in this manner. */
interface Script {
  diesAt: 'accepted' | 'greeted' | 'requested' | 'words' | 'replied' | 'never'
  /** With `words`: of the client's bytes, so many were read. */
  read: number
  manner: 'fin' | 'rst' | 'silence' | 'garbage' | 'refusal'
  /** Says yes, and passes on what it has read before it dies. */
  passesOn: boolean
  afterMs: number
}

interface Scenario {
  hags: Script[]
  prepared: boolean
  pipelined: boolean
  protocol: 'mptcp' | 'tcp'
  /** The client's request, in so many parts, each so much later. */
  parts: number
  pauseMs: number
}

const greeting = 3
const request = 10
const yes = [5, 0, 0, 1, 127, 0, 0, 1, 0, 80]
const no = [5, 1, 0, 1, 0, 0, 0, 0, 0, 0]

/** Gives what a socket says piece by piece; undefined at its end. */
function reader(socket: Socket): (bytes: number) => Promise<Buffer | undefined> {
  let unread = Buffer.alloc(0)
  let isOver = false
  let wake: () => void = () => {}
  const end = () => {
    isOver = true
    wake()
  }
  socket.on('end', end).on('close', end)
  socket.on('data', (data: Buffer) => {
    unread = Buffer.concat([unread, data])
    wake()
  })
  return async (bytes) => {
    while (unread.length < bytes && !isOver) await new Promise<void>((resolve) => (wake = resolve))
    if (unread.length < bytes) return undefined
    const piece = unread.subarray(0, bytes)
    unread = unread.subarray(bytes)
    return piece
  }
}

async function die(socket: Socket, { manner, afterMs, passesOn }: Script, isReplyDue: boolean): Promise<void> {
  if (afterMs > 0) await sleep(afterMs)
  if (manner === 'fin') socket.end()
  if (manner === 'rst') socket.resetAndDestroy()
  if (manner === 'garbage') socket.write('\xff\xfe not SOCKS\r\n')
  // Whoever has passed it on does not say no.
  if (manner === 'refusal') socket.end(Buffer.from(isReplyDue && !passesOn ? no : [5, 0, 0, 9]))
}

function hag(scope: Test, script: Script, server: SocketAddress): Promise<SocketAddress> {
  return serve(scope, async (socket) => {
    const take = reader(socket)
    if (script.diesAt === 'accepted') return die(socket, script, false)
    if ((await take(greeting)) === undefined) return
    socket.write(Buffer.from([5, 0]))
    if (script.diesAt === 'greeted') return die(socket, script, true)
    if ((await take(request)) === undefined) return
    if (script.diesAt === 'requested') return die(socket, script, true)
    const to = connect({ host: server.address, port: server.port, allowHalfOpen: true, noDelay: true })
    scope.teardown(() => to.destroy())
    to.on('error', () => socket.resetAndDestroy())
    const passOn = async (bytes: number): Promise<boolean> => {
      const words = await take(bytes)
      if (words !== undefined) await new Promise((resolve) => to.write(words, resolve))
      return words !== undefined
    }
    if (script.diesAt === 'words') {
      if (script.passesOn) await passOn(script.read)
      else await take(script.read)
      return die(socket, script, true)
    }
    socket.write(Buffer.from(yes))
    if (script.diesAt === 'replied') {
      if (script.passesOn) await passOn(script.read)
      return die(socket, script, false)
    }
    to.pipe(socket)
    while (await passOn(1)) {}
  })
}

/** What was wrong: clients that did not fare as they should, or of whom the server has heard more than once, be it only the first byte. */
async function play(t: Test, scenario: Scenario): Promise<string[]> {
  const requests = new Map<string, number>()
  const server = await serve(t, (socket) => {
    let text = ''
    socket.on('data', (data) => {
      if (text === '') requests.set(`${data}`.charAt(0), (requests.get(`${data}`.charAt(0)) ?? 0) + 1)
      text += data
      if (text.endsWith('\n')) socket.end(`done ${text}`)
    })
  })
  const hags = await Promise.all(scenario.hags.map((script) => hag(t, script, server)))
  const tested = new EngineUnderTest(t)
  const front = tested.listen('redirect')
  const { engine } = tested
  const log = memoryLog()
  const pathTable = new PathTable({ onHagDown: 'reject' })
  const binds = ['127.0.0.1', '127.0.0.2']
  const wans = binds.map((address4, index) => ({ name: `wan${index}`, interface: 'lo', address4 }))
  const pipelining = scenario.pipelined ? hags : []
  const blockedOver = scenario.protocol === 'tcp' ? binds : []
  pathTable.use(pathsOf({ wans, hags, onHagDown: 'reject', pipelining, blockedOver }))
  const isFirst = (remote: SocketAddress | undefined) => remote?.port === hags[0]?.port
  const pool = { serves: ({ hag }: { hag?: SocketAddress }) => scenario.prepared && isFirst(hag), demanded: () => {} }
  const sessions = new Sessions({
    engine,
    pathTable,
    bypass: new Bypass({ bypass: [] }),
    prepared: pool,
    connectTimeoutMs: 1000,
    report: () => {},
    log,
  })
  tested.onEvent = (event) => sessions.handle(event.type === 'accepted' ? { ...event, destination: server } : event)
  const count = 3
  if (scenario.prepared) {
    const probe = { protocol: scenario.protocol, remote: hags[0] as SocketAddress, bind: '127.0.0.1' }
    const all = Array.from({ length: count }, () => engine.prepare({ ...probe, connectTimeoutMs: 500, timeoutMs: 500 }))
    await Promise.all(all)
    await sleep(300)
  }
  const mustServe = scenario.hags.every((script) => script.diesAt === 'never')
  const mayEnd = scenario.hags.some(
    ({ diesAt, manner }) => diesAt === 'replied' && ['fin', 'garbage', 'refusal'].includes(manner),
  )
  const faults: string[] = []
  const one = async (index: number) => {
    const text = `${index} pay\n`
    const client = call(t, front)
    for (let part = 0; part < scenario.parts; part++) {
      client.socket.write(
        text.slice(Math.floor((part * text.length) / scenario.parts), Math.floor(((part + 1) * text.length) / scenario.parts)),
      )
      await sleep(scenario.pauseMs)
    }
    // Of one that waits for a silent HAG all is known by then. One that must be served is, however busy the machine.
    const timer = setTimeout(() => client.socket.destroy(), mustServe ? 10_000 : 1200)
    const { bytes, ending } = await client.received
    clearTimeout(timer)
    const answer = bytes.toString()
    if (answer !== `done ${text}` && (mustServe || (ending === 'end' && !mayEnd))) faults.push(`${ending} after "${answer}"`)
  }
  await Promise.all(Array.from({ length: count }, (_, index) => one(index)))
  await sleep(50)
  for (const [text, times] of requests) if (times > 1) faults.push(`client ${text} was heard ${times} times`)
  faults.push(...log.lines.filter((line) => line.startsWith('error')))
  engine.close()
  return faults
}

const script = fc.record<Script>({
  diesAt: fc.constantFrom('accepted', 'greeted', 'requested', 'words', 'words', 'words', 'replied', 'never'),
  read: fc.integer({ min: 0, max: 6 }),
  manner: fc.constantFrom('fin', 'rst', 'rst', 'rst', 'silence', 'garbage', 'refusal'),
  passesOn: fc.boolean(),
  afterMs: fc.constantFrom(0, 0, 5, 60),
})
const scenario = fc.record<Scenario>({
  hags: fc.tuple(script, script),
  prepared: fc.constantFrom(true, true, true, false),
  pipelined: fc.constantFrom(true, true, true, false),
  protocol: fc.constantFrom('mptcp', 'tcp'),
  parts: fc.integer({ min: 1, max: 3 }),
  pauseMs: fc.constantFrom(0, 1, 20),
})

const works: Script = { diesAt: 'never', read: 0, manner: 'fin', passesOn: true, afterMs: 0 }
const plain: Scenario = { hags: [works, works], prepared: true, pipelined: true, protocol: 'tcp', parts: 1, pauseMs: 0 }
const dies = (more: Partial<Script>): Script => ({ diesAt: 'words', read: 6, manner: 'rst', passesOn: true, afterMs: 0, ...more })

t.test('known ends of a HAG', { skip: needsAddon }, async (t) => {
  const known: Record<string, Scenario> = {
    'passes it on and resets before the ACK of what it has read': { ...plain, hags: [dies({}), works] },
    'ends in order': { ...plain, hags: [dies({ manner: 'fin' }), works] },
    'resets a new connection': { ...plain, prepared: false, hags: [dies({}), works] },
    'hears it in parts': { ...plain, parts: 3, pauseMs: 20, hags: [dies({}), works] },
    'serves, the first one resetting what was prepared': { ...plain, hags: [dies({ diesAt: 'greeted' }), works] },
    works: plain,
  }
  for (const [what, scenario] of Object.entries(known)) t.same(await play(t, scenario), [], what)
})

t.test(
  'HAGs that die at any step: a request is heard at most once, and no end is taken for an answer',
  { skip: needsAddon },
  async (t) => {
    // Many at once, because most of their time is waiting.
    const batches = fc.array(scenario, { minLength: 12, maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(batches, async (batch) => {
        const faults = await Promise.all(batch.map((one) => play(t, one)))
        const found = batch.flatMap((one, index) => (faults[index]?.length ? [{ ...one, faults: faults[index] }] : []))
        if (found.length > 0) throw new Error(JSON.stringify(found, null, 1))
      }),
      { numRuns: 10, endOnFailure: true },
    )
  },
)
