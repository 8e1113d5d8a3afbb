/** The engine without sockets: tests play the clients and the far side. It keeps the contract that test/contract checks on both. */
import type { SocketAddress } from '../../src/base/address.js'
import type {
  ConnectionId,
  ConnectResult,
  DialSpec,
  Engine,
  EngineEvent,
  EngineOptions,
  EngineStats,
  FastPath,
  Inspection,
  Listening,
  ListenOptions,
  Probe,
  ProbeResult,
  Refusal,
} from '../../src/engine/contract.js'
import { type Accepted, type Answer, type FakeConnection, type FarSide, failure, isIn, preparedName } from './far-side.js'

export class FakeEngine implements Engine {
  readonly opens: { connection: ConnectionId; spec: DialSpec; attempt: number }[] = []
  readonly resets: ConnectionId[] = []
  readonly abandoned: string[] = []
  devices: readonly { address: string; device: string }[] = []
  /** Oldest first. */
  prepared: { probe: Probe; atMs: number }[] = []
  readonly refusals: { connection: ConnectionId; reply: number }[] = []
  readonly authentications: { connection: ConnectionId; accepted: boolean }[] = []
  readonly listening: ListenOptions[] = []
  readonly refused: Refusal[] = []
  fastPath: FastPath | undefined
  stopped = false
  closed = false
  readonly #far: FarSide
  readonly #onEvents: (events: EngineEvent[]) => void
  readonly #connections = new Map<ConnectionId, FakeConnection>()
  #queue: EngineEvent[] = []
  #last = 0

  constructor(options: Pick<EngineOptions, 'onEvents'>, far: FarSide = {}) {
    this.#onEvents = options.onEvents
    this.#far = far
  }

  // The test's side.

  accept({
    client = '192.168.1.20',
    destination = '198.51.100.7',
    port = 443,
    local = '192.168.1.1',
    localPort = 12345,
  } = {}): ConnectionId {
    const own = this.#far.own ?? []
    const isToUs = port === localPort && (destination === local || own.includes(destination))
    if (isToUs || own.includes(client)) {
      this.refused.push({
        cause: isToUs ? 'not-redirected' : 'loop',
        client,
        destination: { address: destination, port },
        count: 1,
      })
      if (this.refused.length === 1) this.#emit({ type: 'refused' })
      return ++this.#last
    }
    const connection = this.#add(client, { address: destination, port })
    const at = { client: { address: client, port: 40_000 }, local: { address: local, port: localPort } }
    const accepted: Accepted = { type: 'accepted', connection, destination: { address: destination, port }, ...at }
    if (this.fastPath !== undefined && !isIn(destination, this.fastPath.askAboutDestinations))
      this.#follow(this.fastPath, accepted)
    else this.#emit(accepted)
    return connection
  }

  request(host: string, { client = '10.1.0.2', port = 443 } = {}): ConnectionId {
    const connection = this.#add(client)
    const local = { address: '203.0.113.3', port: 1080 }
    this.#emit({ type: 'request', connection, client: { address: client, port: 40_000 }, local, host, port })
    return connection
  }

  credentials(username: string, password: string, { client = '10.1.0.2' } = {}): ConnectionId {
    const connection = this.#add(client)
    this.#emit({ type: 'credentials', connection, client: { address: client, port: 40_000 }, username, password })
    return connection
  }

  /** Gives an attempt under way its answer, if it met 'silence'. */
  answer(connection: ConnectionId, answer: Answer, attempt = 0): void {
    const entry = this.#connections.get(connection)
    const spec = entry?.attempts.get(attempt)
    if (entry === undefined || spec === undefined || answer === 'silence') return
    if (answer === 'opened') {
      entry.state = 'relaying'
      entry.remote = spec.remote
      entry.attempts.clear()
      if (entry.fastPath !== undefined) {
        clearTimeout(entry.fastPath.timer)
        return
      }
      const local = { address: spec.bind ?? '10.1.0.2', port: 50_000 }
      this.#emit({
        type: 'opened',
        connection,
        attempt,
        local,
        protocol: spec.protocol,
        ...(entry.prepared && { prepared: true }),
      })
      return
    }
    this.#announce(entry, false)
    if (answer.stage === 'request') this.commit(connection, attempt)
    entry.attempts.delete(attempt)
    if (entry.attempts.size === 0) entry.committed = false
    this.#emit({ type: 'failed', connection, attempt, left: entry.attempts.size, ...answer })
  }

  /** The attempt's HAG has answered the greeting, so it goes on alone. */
  commit(connection: ConnectionId, attempt: number): void {
    const entry = this.#connections.get(connection)
    if (entry === undefined) return
    entry.committed = true
    for (const other of [...entry.attempts.keys()]) if (other !== attempt) entry.attempts.delete(other)
  }

  /** The client goes away: orderly after everything was relayed, or with a RST at any time. */
  leave(connection: ConnectionId, reason: 'end' | 'client-reset' = 'end'): void {
    this.#close(connection, reason)
  }

  onOver(connection: ConnectionId, over: NonNullable<FakeConnection['over']>): void {
    const entry = this.#connections.get(connection)
    if (entry !== undefined) entry.over = over
  }

  // The engine's side.

  listen(options: ListenOptions): Listening {
    const error = this.#far.listen?.(options)
    if (error !== undefined) throw error
    this.listening.push(options)
    return { address: options.address, port: options.port, protocol: options.kind === 'socks' ? 'mptcp' : 'tcp' }
  }

  stopListening(): void {
    this.stopped = true
  }

  setFastPath(fastPath: FastPath | undefined): void {
    this.fastPath = fastPath
  }

  dial(connection: ConnectionId, spec: DialSpec, attempt = 0): void {
    const entry = this.#connections.get(connection)
    if (entry === undefined || entry.state !== 'waiting' || entry.committed || entry.attempts.has(attempt)) return
    this.opens.push({ connection, spec, attempt })
    entry.attempts.set(attempt, spec)
    const name = spec.socks?.prepared ? preparedName({ ...spec, ...spec.socks }) : undefined
    const at = this.prepared.findIndex(({ probe }) => preparedName(probe) === name)
    if (at >= 0) {
      this.prepared.splice(at, 1)
      this.commit(connection, attempt)
      entry.prepared = true
    }
    this.answer(connection, this.#far.answer?.(spec) ?? 'opened', attempt)
  }

  authenticate(connection: ConnectionId, accepted: boolean): void {
    this.authentications.push({ connection, accepted })
    if (!accepted) this.#close(connection, 'refused')
  }

  refuse(connection: ConnectionId, reply: number): void {
    if (!this.#connections.has(connection)) return
    this.refusals.push({ connection, reply })
    this.#close(connection, 'refused', reply)
  }

  reset(connection: ConnectionId): void {
    if (!this.#connections.has(connection)) return
    this.resets.push(connection)
    this.#close(connection, 'reset')
  }

  async probe(probe: Probe): Promise<ProbeResult> {
    const local = { address: probe.bind ?? '10.1.0.2', port: 50_000 }
    const result = this.#far.probe?.(probe) ?? { ok: true, local, protocol: 'mptcp', connectMs: 30 }
    if (result.ok && probe.watchMs !== undefined) await new Promise((resolve) => setTimeout(resolve, probe.watchMs).unref())
    return result
  }

  async prepare(probe: Probe): Promise<ProbeResult> {
    const result = await this.probe(probe)
    if (result.ok) this.prepared.push({ probe, atMs: performance.now() })
    return result
  }

  keepPrepared(probes: readonly Probe[], max: number, maxAgeMs: number): { counts: number[]; endedMs?: number } {
    const names = probes.map(preparedName)
    this.prepared = this.prepared.filter(
      ({ probe, atMs }) => names.includes(preparedName(probe)) && performance.now() - atMs < maxAgeMs,
    )
    const countOf = (name: string) => this.prepared.filter(({ probe }) => preparedName(probe) === name).length
    for (const name of names) {
      while (countOf(name) > max) {
        this.prepared.splice(
          this.prepared.findIndex(({ probe }) => preparedName(probe) === name),
          1,
        )
      }
    }
    return { counts: names.map(countOf) }
  }

  async connect(spec: Omit<DialSpec, 'socks'>): Promise<ConnectResult> {
    return this.#far.connect?.(spec) ?? { ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }
  }

  useDevices(devices: readonly { address: string; device: string }[]): void {
    this.devices = devices
  }

  abandon(source: string): void {
    this.abandoned.push(source)
    for (const [connection, { attempts }] of this.#connections) {
      for (const [attempt, { bind }] of attempts) {
        if (bind === source) this.answer(connection, failure('connect', 'ENETDOWN'), attempt)
      }
    }
  }

  async resetConnectionsTo(remote: SocketAddress): Promise<number> {
    const isMeant = (one: SocketAddress | undefined) => one?.address === remote.address && one.port === remote.port
    this.prepared = this.prepared.filter(({ probe }) => !isMeant(probe.remote))
    const entries = [...this.#connections]
    for (const [connection, { attempts }] of entries)
      for (const [attempt, spec] of attempts)
        if (isMeant(spec.remote)) this.answer(connection, failure('connect', 'ECONNRESET'), attempt)
    const relayed = entries.filter((entry) => isMeant(entry[1].remote))
    for (const [connection] of relayed) this.#close(connection, 'upstream-reset')
    return relayed.length
  }

  async resetStranded(): Promise<number> {
    return 0
  }

  async countOnly(): Promise<number> {
    return 0
  }

  watchConnectionsTo(): void {}

  setKeepalive(): void {}

  async inspectBusy(): Promise<Inspection[]> {
    return this.inspect()
  }

  async inspect(): Promise<Inspection[]> {
    return this.#far.inspect?.() ?? []
  }

  takeRefusals() {
    return this.refused.splice(0)
  }

  stats(): EngineStats {
    const relaying = [...this.#connections.values()].filter(({ state }) => state === 'relaying').length
    return { connections: this.#connections.size, relaying, pipesInUse: 0, pipesPooled: 0, bytesParked: 0, calmMs: 0 }
  }

  close(): void {
    this.closed = true
    this.#connections.clear()
    this.#queue = []
  }

  #follow({ id, askAboutDestinations: _, patienceMs, ...spec }: FastPath, accepted: Accepted): void {
    const entry = this.#connections.get(accepted.connection)
    if (entry === undefined) return
    const timer = setTimeout(() => entry.committed || this.#announce(entry, true), patienceMs).unref()
    entry.fastPath = { id, accepted, timer }
    const { address: host, port } = accepted.destination
    if (spec.socks.prepared) this.#emit({ type: 'demand', clients: 1 })
    this.dial(accepted.connection, { ...spec, socks: { ...spec.socks, host, port } })
  }

  #announce(entry: FakeConnection, late: boolean): void {
    if (entry.fastPath === undefined) return
    const { accepted, id, timer } = entry.fastPath
    clearTimeout(timer)
    entry.fastPath = undefined
    this.#emit({ ...accepted, viaFastPath: { id, timedOut: late } })
  }

  #add(address: string, destination?: SocketAddress): ConnectionId {
    const connection = ++this.#last
    this.#connections.set(connection, {
      client: { address, port: 40_000 },
      ...(destination && { destination }),
      state: 'waiting',
      attempts: new Map(),
      committed: false,
    })
    return connection
  }

  #close(connection: ConnectionId, reason: Extract<EngineEvent, { type: 'closed' }>['reason'], reply?: number): void {
    const entry = this.#connections.get(connection)
    if (entry === undefined) return
    this.#connections.delete(connection)
    clearTimeout(entry.fastPath?.timer)
    entry.over?.(reply ?? (reason === 'end' ? 'end' : 'reset'))
    const isRelayed = entry.state === 'relaying'
    const destination = entry.destination ?? (isRelayed ? entry.remote : undefined)
    const counts = isRelayed ? { sent: 100, received: 2000, durationMs: 1 } : { sent: 0, received: 0, durationMs: 1 }
    const closed: Extract<EngineEvent, { type: 'closed' }> = {
      type: 'closed',
      connection,
      reason,
      client: entry.client,
      ...counts,
    }
    if (reason === 'upstream-reset') closed.failure = { code: 'ECONNRESET', errno: 104, syscall: 'reset' }
    if (destination !== undefined) closed.destination = destination
    if (isRelayed && entry.fastPath !== undefined) closed.fastPath = entry.fastPath.id
    this.#emit(closed)
  }

  /** In batches, like the real one. */
  #emit(event: EngineEvent): void {
    this.#queue.push(event)
    if (this.#queue.length > 1) return
    setImmediate(() => {
      const batch = this.#queue
      this.#queue = []
      if (!this.closed && batch.length > 0) this.#onEvents(batch)
    })
  }
}
