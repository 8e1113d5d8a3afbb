/** The whole question to a HAG: connect, greeting, authentication and CONNECT. The only importer of the package socks. */
import { Socket } from 'node:net'
import { SocksClient, type SocksClientOptions } from 'socks'
import type { Engine, Protocol } from '../native/index.js'
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
