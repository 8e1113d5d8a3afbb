/** Whole questions to a HAG, up to CONNECT and beyond. The only importer of the package socks. */
import { Socket } from 'node:net'
import { SocksClient, type SocksClientOptions } from 'socks'
import type { Engine, Protocol } from '../native/index.js'
import { parseAddress } from '../shared/address.js'
import type { Target } from '../shared/hag-probe.js'

/**
 * Asks a HAG to connect to its own SOCKS port, so that nobody else is bothered. Any well-formed reply will do: many HAGs, ours too,
 * refuse that destination, and say so (RFC 1928 section 6). Returns what is wrong with the HAG; `unreachable` where it could not even be connected to.
 */
export async function asksForConnect(
  engine: Pick<Engine, 'connect'>,
  { hag, bind }: Target,
  { protocol, timeoutMs }: { protocol: Protocol; timeoutMs: number },
): Promise<'unreachable' | string | undefined> {
  const { address, port, username, password } = hag
  const connected = await engine.connect({ protocol, remote: { address, port }, bind, connectTimeoutMs: timeoutMs })
  if (!connected.ok) return 'unreachable'
  const socket = new Socket({ fd: connected.fd })
  socket.on('error', () => {})
  const credentials = { ...(username !== undefined && { userId: username }), ...(password !== undefined && { password }) }
  const options: SocksClientOptions = {
    ...{ command: 'connect', existing_socket: socket, timeout: timeoutMs },
    proxy: { host: address, port, type: 5, ...credentials },
    destination: { host: address, port },
  }
  try {
    await SocksClient.createConnection(options)
    return undefined
  } catch (error) {
    const { message } = error as Error
    // What is no reply at all is a rejection for reasons without a name.
    if (/rejected connection - (?!undefined)/.test(message)) return undefined
    return `it greets, but does not answer a request: ${message}`
  } finally {
    socket.destroy()
  }
}

/**
 * Does a HAG read exactly what it parses? Greeting, credentials, CONNECT and payload are sent in one go, to its own SOCKS port, which
 * answers the payload, another greeting. A server that reads greedily loses some of it, and hangs or hangs up. Undefined where it could not be
 * connected to, and so not be asked.
 */
export async function takesPipelined(
  engine: Pick<Engine, 'connect'>,
  { hag, bind }: Target,
  { timeoutMs }: { timeoutMs: number },
): Promise<boolean | undefined> {
  const { address, port, username, password = '' } = hag
  const destination = parseAddress(address)?.toByteArray()
  if (destination === undefined) return false
  const connected = await engine.connect({ protocol: 'tcp', remote: { address, port }, bind, connectTimeoutMs: timeoutMs })
  if (!connected.ok) return undefined
  const text = (value: string) => [Buffer.byteLength(value), ...Buffer.from(value)]
  const greeting = [5, 1, username === undefined ? 0 : 2]
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
  if (method.length === 2 && (method[0] !== 5 || method[1] !== (withPassword ? 2 : 0))) return false
  if (status?.length === 2 && status[1] !== 0) return false
  if (reply.length < 5) return reply.length > 1 && reply[1] !== 0 ? false : undefined
  if (reply[0] !== 5 || reply[1] !== 0) return false
  const length = { 1: 10, 3: 7 + (reply[4] ?? 0), 4: 22 }[reply[3] ?? 0]
  if (length === undefined) return false
  const echo = reply.subarray(length)
  return echo.length < 2 ? undefined : echo[0] === 5
}
