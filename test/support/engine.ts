/** The real engine on loopback, for tests that look closer than through `run` and `hag`. */
import { once } from 'node:events'
import { createServer, connect as dial, type Socket } from 'node:net'
import type { SocketAddress } from '../../src/base/address.js'
import type { DialSpec, Engine, EngineEvent, EngineOptions, ListenOptions, Native } from '../../src/engine/contract.js'
import type { Scope } from './namespaces.js'

/** undefined if the addon is not built. */
export const native: Native | undefined = await import('../../src/engine/load.js').then(
  (module) => module.native,
  () => undefined,
)
/** For `t.test(name, { skip: needsAddon }, ...)`. */
export const needsAddon: string | false = native?.Engine === undefined && 'the addon is not built'

type Type = EngineEvent['type']
type EventOf<T extends Type> = Extract<EngineEvent, { type: T }>

export class EngineUnderTest {
  readonly engine: Engine
  readonly events: EngineEvent[] = []
  /** Decides, as a gateway would, at once. */
  onEvent: (event: EngineEvent) => void = () => undefined
  private wake: () => void = () => undefined

  constructor(scope: Scope, options: Partial<EngineOptions> = {}) {
    this.engine = new (native as Native).Engine({
      workers: 2,
      maxConnections: 1000,
      idleTimeoutMs: 60_000,
      handshakeTimeoutMs: 20_000,
      ...options,
      onEvents: (events) => {
        for (const event of events) {
          this.events.push(event)
          this.onEvent(event)
        }
        this.wake()
      },
    })
    scope.teardown(() => this.engine.close())
  }

  listen(kind: ListenOptions['kind'], options: Partial<ListenOptions> = {}): SocketAddress {
    return this.engine.listen({ kind, address: '127.0.0.1', port: 0, ...options })
  }

  /** Dials for every `accepted` and `request`. */
  always(specTo: (event: EventOf<'accepted' | 'request'>) => DialSpec): void {
    this.onEvent = (event) => {
      if (event.type === 'accepted' || event.type === 'request') this.engine.dial(event.connection, specTo(event))
    }
  }

  /** The first event of a type that the test has not asked for yet; rejects after 20 s. */
  async next<T extends Type>(type: T): Promise<EventOf<T>> {
    for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
      const at = this.events.findIndex((event) => event.type === type)
      if (at >= 0) return this.events.splice(at, 1)[0] as EventOf<T>
      await new Promise<void>((resolve) => {
        this.wake = resolve
        setTimeout(resolve, 100)
      })
    }
    throw new Error(`no ${type} in ${JSON.stringify(this.events)}`)
  }
}

export const specTo = (remote: SocketAddress, more: Partial<DialSpec> = {}): DialSpec => ({
  protocol: 'tcp',
  remote,
  connectTimeoutMs: 10_000,
  ...more,
})

/** A server on loopback, ended with the test. Errors of its sockets are ignored, because tests cause them. */
export async function serve(scope: Scope, onSocket: (socket: Socket) => unknown, host = '127.0.0.1'): Promise<SocketAddress> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket))
    onSocket(socket)
  })
  server.listen(0, host, 1024)
  await once(server, 'listening')
  scope.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { address, port } = server.address() as { address: string; port: number }
  return { address, port }
}

export const echo = (scope: Scope, host?: string) => serve(scope, (socket) => socket.pipe(socket), host)

/** What came until the connection ended, and how it ended: `end` or an errno. */
export interface Received {
  bytes: Buffer
  ending: string
}

export interface Caller {
  socket: Socket
  received: Promise<Received>
}

/** A client, ended with the test; `say` is sent at once. */
export function call(scope: Scope, to: SocketAddress, say?: Buffer | string): Caller {
  const socket = dial({ host: to.address, port: to.port, allowHalfOpen: true, noDelay: true })
  scope.teardown(() => socket.destroy())
  const chunks: Buffer[] = []
  let ending = 'closed by the test'
  socket.on('data', (data: Buffer) => chunks.push(data))
  socket.on('end', () => {
    ending = 'end'
    socket.end()
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    ending = error.code ?? 'error'
  })
  const received = new Promise<Received>((resolve) => socket.on('close', () => resolve({ bytes: Buffer.concat(chunks), ending })))
  if (say !== undefined) socket.write(say)
  return { socket, received }
}
