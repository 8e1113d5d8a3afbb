/** Complete requests to a HAG, up to CONNECT and beyond. The only importer of the package socks. */
import { Socket } from 'node:net'
import { SocksClient, type SocksClientOptions } from 'socks'
import { parseAddress, type SocketAddress } from '../../base/address.js'
import type { Engine } from '../../engine/contract.js'
import type { Target } from '../../engine/probe.js'

type Connector = Pick<Engine, 'connect'>

export type Finding =
  /** No connection to it: other probes find out why. */
  | { state: 'unreachable' }
  /** It ended the connection instead of a greeting. */
  | { state: 'turned-away' }
  /** It answers the greeting, but not the request. */
  | { state: 'broken'; trouble: string }
  /** It answers requests. `isRefused`: all of them with "not allowed". `pipelines`: undefined if that could not be found out. */
  | { state: 'works'; isRefused: boolean; pipelines: boolean | undefined }

/**
 * A destination that every HAG can refuse at once: TCP to the broadcast address fails in its own kernel (tcp_v4_connect), so nothing is
 * sent to anybody.
 */
const nowhere: SocketAddress = { address: '255.255.255.255', port: 1 }
/** There is no such name (RFC 6761 section 6.4). */
const noName: SocketAddress = { address: 'bondsocks.invalid', port: 1 }

/**
 * Finds out whether a HAG works, and serves us. Takes some 1.5 kB. Over TCP, because with MPTCP the kernel would join the other WANs, which
 * may be metered.
 */
export async function examine(engine: Connector, target: Target, { timeoutMs }: { timeoutMs: number }): Promise<Finding> {
  const ask = (destination: SocketAddress) => asksForConnect(engine, target, { destination, timeoutMs })
  let answer = await ask(nowhere)
  if (answer.state === 'unreachable' || answer.state === 'turned-away') return answer
  if (answer.state === 'broken') {
    // A HAG that passes requests on to another proxy or a tunnel may not answer for that destination. Then any answer for another destination
    // will do.
    const others = await Promise.all([ask(target.hag), ask(noName)])
    answer = others.find(({ state }) => state === 'answered') ?? answer
    if (answer.state !== 'answered') return { state: 'broken', trouble: answer.state === 'broken' ? answer.trouble : '' }
  }
  const pipelines = await takesPipelined(engine, target, { timeoutMs })
  // `bondsocks hag` refuses that destination to everybody, and strangers before they ask. If the HAG connects us to itself, it serves us.
  if (pipelines === true || !answer.isRefused) return { state: 'works', isRefused: false, pipelines }
  return { state: 'works', isRefused: true, pipelines: undefined }
}

/** Replies of RFC 1928 section 6, in the package's words. */
export type Reply =
  | 'Granted'
  | 'Failure'
  | 'NotAllowed'
  | 'NetworkUnreachable'
  | 'HostUnreachable'
  | 'ConnectionRefused'
  | 'TTLExpired'
  | 'CommandNotSupported'
  | 'AddressNotSupported'

type Answer = { state: 'answered'; reply: Reply; isRefused: boolean } | Exclude<Finding, { state: 'works' }>

/** The HAG's reply to a CONNECT; undefined if it does not come in time. If it connects, that connection is closed at once. */
export async function replyTo(
  engine: Connector,
  target: Target,
  how: { destination: SocketAddress; timeoutMs: number },
): Promise<Reply | undefined> {
  const answer = await asksForConnect(engine, target, how)
  return answer.state === 'answered' ? answer.reply : undefined
}

/** Any well-formed reply will do, whatever it says (RFC 1928 section 6). */
async function asksForConnect(
  engine: Connector,
  { hag, bind }: Target,
  { destination, timeoutMs }: { destination: SocketAddress; timeoutMs: number },
): Promise<Answer> {
  const { address, port, username, password } = hag
  const connected = await engine.connect({ protocol: 'tcp', remote: { address, port }, bind, connectTimeoutMs: timeoutMs })
  if (!connected.ok) return { state: 'unreachable' }
  const socket = new Socket({ fd: connected.fd })
  socket.on('error', () => {})
  const proxy: SocksClientOptions['proxy'] = { host: address, port, type: 5 }
  if (username !== undefined) proxy.userId = username
  if (password !== undefined) proxy.password = password
  const options: SocksClientOptions = {
    command: 'connect',
    existing_socket: socket,
    timeout: timeoutMs,
    proxy,
    destination: { host: destination.address, port: destination.port },
  }
  const startedAt = performance.now()
  try {
    await SocksClient.createConnection(options)
    return { state: 'answered', reply: 'Granted', isRefused: false }
  } catch (error) {
    const { message } = error as Error
    const reply = /rejected connection - (?!undefined)(\w+)/.exec(message)?.[1]
    if (reply !== undefined) return { state: 'answered', reply: reply as Reply, isRefused: reply === 'NotAllowed' }
    const isLate = performance.now() - startedAt >= timeoutMs
    if (!isLate && (socket.bytesRead === 0 || /unknown authentication type/.test(message))) return { state: 'turned-away' }
    return { state: 'broken', trouble: `it greets, but does not answer a request: ${message}` }
  } finally {
    socket.destroy()
  }
}

/** A method of the private range of RFC 1928 section 3. `bondsocks hag` chooses it if it is offered (socks5.h). */
const bondsocksMethod = 0xfd

/**
 * Whether a HAG reads only the message that it parses, so that it can be sent all at once. `bondsocks hag` does, and tells that it is one.
 * Others are tested: greeting, credentials, CONNECT to the HAG's own SOCKS port, and a second greeting as payload are sent at once; the
 * second greeting must be answered. A server that reads too much loses some of it, and hangs or closes. Undefined if no connection was
 * possible.
 */
export async function takesPipelined(
  engine: Connector,
  { hag, bind }: Target,
  { timeoutMs }: { timeoutMs: number },
): Promise<boolean | undefined> {
  const { address, port, username, password = '' } = hag
  const destination = parseAddress(address)?.toByteArray()
  if (destination === undefined) return false
  const connected = await engine.connect({ protocol: 'tcp', remote: { address, port }, bind, connectTimeoutMs: timeoutMs })
  if (!connected.ok) return undefined
  const text = (value: string) => [Buffer.byteLength(value), ...Buffer.from(value)]
  const greeting = [5, 2, bondsocksMethod, username === undefined ? 0 : 2]
  const credentials = username === undefined ? [] : [1, ...text(username), ...text(password)]
  const request = [5, 1, 0, destination.length === 4 ? 1 : 4, ...destination, port >> 8, port & 255]
  const socket = new Socket({ fd: connected.fd })
  try {
    socket.setTimeout(timeoutMs, () => socket.destroy())
    socket.on('error', () => {})
    socket.write(Buffer.from([...greeting, ...credentials, ...request, 5, 1, 0]))
    let answers = Buffer.alloc(0)
    for await (const data of socket) {
      answers = Buffer.concat([answers, data as Buffer])
      const verdict = isEchoed(answers, username !== undefined)
      if (verdict !== undefined) return verdict
    }
    return false
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Method, status, reply and the second greeting's method, in this order (RFC 1928, RFC 1929); undefined: not complete yet. */
function isEchoed(answers: Buffer, withPassword: boolean): boolean | undefined {
  const [method, status, reply] = [
    answers.subarray(0, 2),
    withPassword ? answers.subarray(2, 4) : undefined,
    answers.subarray(withPassword ? 4 : 2),
  ]
  if (method.length === 2 && method[0] === 5 && method[1] === bondsocksMethod) return true
  if (method.length === 2 && (method[0] !== 5 || method[1] !== (withPassword ? 2 : 0))) return false
  if (status?.length === 2 && status[1] !== 0) return false
  if (reply.length < 5) return reply.length > 1 && reply[1] !== 0 ? false : undefined
  if (reply[0] !== 5 || reply[1] !== 0) return false
  const length = { 1: 10, 3: 7 + (reply[4] ?? 0), 4: 22 }[reply[3] ?? 0]
  if (length === undefined) return false
  const echo = reply.subarray(length)
  return echo.length < 2 ? undefined : echo[0] === 5
}
