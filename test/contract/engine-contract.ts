/** What every Engine keeps, whoever the client and the far side are; run on the fake and on the real one. */
import type { Test } from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import type { DialSpec, Engine, EngineEvent, EngineOptions } from '../../src/engine/contract.js'

export interface Client {
  /** How it learns that it is over: orderly, aborted, or (SOCKS) refused with this reply. */
  readonly over: Promise<'end' | 'reset' | number>
  /** Ends its sending; the far side answers in kind. */
  end(): void
  /** Goes away with a RST. */
  abort(): void
}

export interface Harness {
  engine: Engine
  /** A client that arrives at a `redirect` listener. */
  redirected(): Client
  /** A client that asks a `socks` listener without authentication for a destination. */
  requesting(host: string, port: number): Client
  /** A far side that ends when its client ends, one where nothing listens, and one that never answers. */
  accepting: SocketAddress
  refusing: SocketAddress
  silent: SocketAddress
  /** A SOCKS server that opens what is asked for. */
  hag: SocketAddress
}

export type MakeHarness = (t: Test, options: Pick<EngineOptions, 'onEvents'>) => Promise<Harness>

/** Events as they come, and a way to wait for the next one of a type. */
class Events {
  readonly all: EngineEvent[] = []
  #wake: () => void = () => undefined

  readonly push = (events: EngineEvent[]) => {
    this.all.push(...events)
    this.#wake()
  }

  async next<Type extends EngineEvent['type']>(type: Type, after = 0): Promise<Extract<EngineEvent, { type: Type }>> {
    for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
      const found = this.all.slice(after).find((event) => event.type === type)
      if (found !== undefined) return found as Extract<EngineEvent, { type: Type }>
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        setTimeout(resolve, 100)
      })
    }
    throw new Error(`no ${type} in ${JSON.stringify(this.all)}`)
  }

  types(): string[] {
    return this.all.map(({ type }) => type)
  }
}

const spec = (remote: SocketAddress, connectTimeoutMs = 20_000): DialSpec => ({ protocol: 'tcp', remote, connectTimeoutMs })
/** Long enough for an event that must not come. */
const quiet = (milliseconds = 100) => new Promise((resolve) => setTimeout(resolve, milliseconds))
/** Of attempts that must be over before they would time out: long enough for a busy machine to get there. */
const patienceMs = 700

export function engineContract(t: Test, name: string, make: MakeHarness): void {
  const behaviour = (what: string, body: (t: Test, harness: Harness, events: Events) => Promise<void>) =>
    t.test(`${name}: ${what}`, async (t) => {
      const events = new Events()
      const harness = await make(t, { onEvents: events.push })
      t.teardown(() => harness.engine.close())
      await body(t, harness, events)
    })

  behaviour('accepted, opened, closed, in this order and once each', async (t, { engine, redirected, accepting }, events) => {
    const client = redirected()
    const { connection } = await events.next('accepted')
    t.equal(engine.stats().connections, 1)
    engine.dial(connection, spec(accepting))
    const opened = await events.next('opened')
    t.equal(opened.connection, connection)
    t.equal(opened.protocol, 'tcp')
    t.equal(engine.stats().relaying, 1)
    client.end()
    t.match(await events.next('closed'), { connection, reason: 'end' })
    t.equal(await client.over, 'end')
    await quiet()
    t.same(events.types(), ['accepted', 'opened', 'closed'])
    t.equal(engine.stats().connections, 0)
  })

  behaviour('a failed attempt leaves the client waiting, and another path may succeed', async (t, harness, events) => {
    const { engine, redirected, accepting, refusing } = harness
    const client = redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, spec(refusing))
    t.match(await events.next('failed'), { connection, stage: 'connect', failure: { code: 'ECONNREFUSED' } })
    t.equal(engine.stats().connections, 1)
    engine.dial(connection, spec(accepting))
    await events.next('opened')
    client.end()
    await events.next('closed')
    t.same(events.types(), ['accepted', 'failed', 'opened', 'closed'])
  })

  behaviour('an attempt that nobody answers fails with ETIMEDOUT', async (t, { engine, redirected, silent }, events) => {
    redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, spec(silent, 100))
    t.match(await events.next('failed'), { connection, stage: 'connect', failure: { code: 'ETIMEDOUT' } })
  })

  behaviour('attempts race: the first that is there goes on alone, the others end unheard', async (t, harness, events) => {
    const { engine, redirected, accepting, silent } = harness
    const client = redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, spec(silent, patienceMs), 0)
    engine.dial(connection, spec(silent, patienceMs), 1)
    engine.dial(connection, spec(accepting), 2)
    t.match(await events.next('opened'), { connection, attempt: 2 })
    engine.dial(connection, spec(accepting), 3)
    await quiet(patienceMs + 100)
    t.same(events.types(), ['accepted', 'opened'])
    client.end()
    await events.next('closed')
  })

  behaviour('a failed attempt says how many are left', async (t, { engine, redirected, refusing, silent, accepting }, events) => {
    redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, spec(silent, 1500), 7)
    engine.dial(connection, spec(refusing), 7)
    engine.dial(connection, spec(silent, 500), 8)
    engine.dial(connection, spec(refusing), 9)
    t.match(await events.next('failed'), { connection, attempt: 9, left: 2, failure: { code: 'ECONNREFUSED' } })
    t.match(await events.next('failed', 2), { connection, attempt: 8, left: 1, failure: { code: 'ETIMEDOUT' } })
    t.match(await events.next('failed', 3), { connection, attempt: 7, left: 0, failure: { code: 'ETIMEDOUT' } })
    engine.dial(connection, spec(accepting), 7)
    t.match(await events.next('opened'), { connection, attempt: 7 })
    t.same(events.types(), ['accepted', 'failed', 'failed', 'failed', 'opened'], 'a number under way is taken')
  })

  behaviour('reset, refuse and the client end every attempt', async (t, harness, events) => {
    const { engine, redirected, requesting, silent } = harness
    for (const end of ['reset', 'refuse', 'abort'] as const) {
      const from = events.all.length
      const client = end === 'refuse' ? requesting('nowhere.example', 443) : redirected()
      const { connection } = await events.next(end === 'refuse' ? 'request' : 'accepted', from)
      for (const attempt of [0, 1, 2]) engine.dial(connection, spec(silent, patienceMs), attempt)
      await quiet()
      if (end === 'reset') engine.reset(connection)
      else if (end === 'refuse') engine.refuse(connection, 5)
      else client.abort()
      if (end === 'refuse') t.equal(await client.over, 5)
      await events.next('closed', from)
      await quiet(patienceMs)
      t.same(events.types().slice(from + 1), ['closed'], end)
    }
  })

  behaviour('a prepared connection is used once, over the path for which it was made', async (t, harness, events) => {
    const { engine, redirected, accepting, hag } = harness
    const probe = { protocol: 'mptcp' as const, remote: hag, bind: '127.0.0.1', connectTimeoutMs: 2000, timeoutMs: 2000 }
    t.match(await engine.prepare(probe), { ok: true })
    t.match(await engine.prepare(probe), { ok: true })
    t.same(engine.keepPrepared([{ ...probe, bind: '127.0.0.2' }, probe], 16, 60_000), { counts: [0, 2] })
    // Those that may not have joined the other WANs yet are not used.
    await new Promise((resolve) => setTimeout(resolve, 300))
    const request = { host: accepting.address, port: accepting.port, timeoutMs: 2000 }
    const socks = { ...request, handshake: 'pipelined' as const, prepared: true }
    const used: (boolean | undefined)[] = []
    for (const bind of ['127.0.0.2', '127.0.0.1', '127.0.0.1', '127.0.0.1']) {
      const from = events.all.length
      const client = redirected()
      const { connection } = await events.next('accepted', from)
      engine.dial(connection, { protocol: 'mptcp', remote: hag, bind, connectTimeoutMs: 2000, socks })
      const opened = await events.next('opened', from)
      used.push(opened.prepared)
      client.end()
      t.match(await events.next('closed', from), { connection, reason: 'end' })
    }
    t.same(used, [undefined, true, true, undefined])

    for (let index = 0; index < 3; index++) t.match(await engine.prepare(probe), { ok: true })
    t.same(engine.keepPrepared([probe], 1, 60_000), { counts: [1] })
    t.equal(await engine.resetConnectionsTo(hag), 0)
    t.same(engine.keepPrepared([probe], 16, 60_000), { counts: [0] }, 'those to a HAG that is dead are gone')
  })

  behaviour('reset aborts a client that waits', async (t, { engine, redirected }, events) => {
    const client = redirected()
    const { connection } = await events.next('accepted')
    engine.reset(connection)
    t.match(await events.next('closed'), { connection, reason: 'reset' })
    t.equal(await client.over, 'reset')
  })

  behaviour('reset aborts a relayed connection', async (t, { engine, redirected, accepting }, events) => {
    const client = redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, spec(accepting))
    await events.next('opened')
    engine.reset(connection)
    t.match(await events.next('closed'), { connection, reason: 'reset' })
    t.equal(await client.over, 'reset')
  })

  behaviour(
    'a client that goes away during an attempt: closed, and nothing after it',
    async (t, { engine, redirected, silent }, events) => {
      const client = redirected()
      const { connection } = await events.next('accepted')
      engine.dial(connection, spec(silent, patienceMs))
      await quiet()
      client.abort()
      t.match(await events.next('closed'), { connection, reason: 'client-reset' })
      engine.dial(connection, spec(silent, 100))
      engine.refuse(connection, 1)
      engine.reset(connection)
      await quiet(patienceMs)
      t.same(events.types(), ['accepted', 'closed'], 'commands for a connection that is gone are ignored')
    },
  )

  behaviour('abandon ends the attempts that are bound to an address', async (t, { engine, redirected, silent }, events) => {
    redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, { ...spec(silent), bind: '127.0.0.1' }, 0)
    engine.dial(connection, { ...spec(silent), bind: '127.0.0.2' }, 1)
    engine.dial(connection, spec(silent), 2)
    engine.abandon('127.0.0.2')
    t.match(await events.next('failed'), { connection, attempt: 1, left: 2, stage: 'connect', failure: { code: 'ENETDOWN' } })
    engine.abandon('127.0.0.3')
    engine.abandon('no address')
    await quiet()
    t.same(events.types(), ['accepted', 'failed'])
  })

  behaviour('resetConnectionsTo ends what goes to a HAG, and tells how many it relayed', async (t, harness, events) => {
    const { engine, redirected, accepting, silent } = harness
    const relayed = redirected()
    const first = await events.next('accepted')
    engine.dial(first.connection, spec(accepting))
    await events.next('opened')
    redirected()
    const second = await events.next('accepted', events.all.length)
    engine.dial(second.connection, spec(silent))
    await quiet()
    t.equal(await engine.resetConnectionsTo({ ...accepting, port: 9 }), 0)
    t.equal(await engine.resetConnectionsTo(accepting), 1)
    const closed = await events.next('closed')
    t.match(closed, { connection: first.connection, reason: 'upstream-reset', failure: { code: 'ECONNRESET' } })
    t.equal(await relayed.over, 'reset')
    t.equal(await engine.resetConnectionsTo(silent), 0, 'an attempt does not count')
    const failed = await events.next('failed')
    t.match(failed, { connection: second.connection, attempt: 0, left: 0, failure: { code: 'ECONNRESET' } })
    t.equal(await engine.resetStranded(), 0)
    t.equal(await engine.countOnly('127.0.0.1', 0), 0)
  })

  behaviour('connect tells why it could not', async (t, { engine, refusing }) => {
    const connected = await engine.connect(spec(refusing))
    t.match(connected, { ok: false, failure: { code: 'ECONNREFUSED', syscall: 'connect' } })
  })

  behaviour('a request is refused with the reply it was told', async (t, { engine, requesting }, events) => {
    const client = requesting('nowhere.example', 443)
    const request = await events.next('request')
    t.match(request, { host: 'nowhere.example', port: 443 })
    engine.refuse(request.connection, 4)
    t.match(await events.next('closed'), { connection: request.connection, reason: 'refused' })
    t.equal(await client.over, 4)
  })

  behaviour('stopListening leaves connections alone', async (t, { engine, redirected, accepting }, events) => {
    const client = redirected()
    const { connection } = await events.next('accepted')
    engine.stopListening()
    engine.dial(connection, spec(accepting))
    await events.next('opened')
    client.end()
    t.match(await events.next('closed'), { reason: 'end' })
  })

  behaviour('close: no event follows, and a second close is nothing', async (t, { engine, redirected, accepting }, events) => {
    redirected()
    const { connection } = await events.next('accepted')
    engine.dial(connection, spec(accepting))
    await events.next('opened')
    engine.close()
    engine.close()
    await quiet()
    t.same(events.types(), ['accepted', 'opened'])
  })
}
