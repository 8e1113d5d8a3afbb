/** HAGs that say what a test has them say, and dial specs through them. */
import type { Socket } from 'node:net'
import type { SocketAddress } from '../../src/base/address.js'
import type { DialSpec } from '../../src/engine/contract.js'
import { serve, specTo } from './engine.js'
import { sleep } from './hybrid.js'
import type { Scope } from './namespaces.js'

export type Handshake = NonNullable<DialSpec['socks']>['handshake']
export const handshakes: Handshake[] = ['sequential', 'pipelined']
export const credentials = { username: 'home', password: 'open sesame' }

/** For a dial through a HAG to `destination`. */
export const through = (hag: SocketAddress, destination: SocketAddress, handshake: Handshake, more: object = {}): DialSpec =>
  specTo(hag, { socks: { host: destination.address, port: destination.port, handshake, timeoutMs: 10_000, ...more } })

export const somewhere = { address: '192.0.2.1', port: 80 }
export const yes = Buffer.from([5, 0, 0, 1, 192, 0, 2, 9, 0, 80])

/**
 * A HAG that says its lines, each one after it received something; a client that sends all at once is waited for only once. Then it does
 * what `then` says.
 */
export function scripted(
  scope: Scope,
  lines: Buffer[],
  then: 'close' | 'reset' | 'silence',
  { handshake = 'pipelined', cut = false }: { handshake?: Handshake; cut?: boolean } = {},
): Promise<SocketAddress> {
  const say = async (socket: Socket, bytes: Buffer) => {
    if (!cut) {
      socket.write(bytes)
      return
    }
    for (const byte of bytes) {
      socket.write(Buffer.from([byte]))
      await sleep(2)
    }
  }
  return serve(scope, async (socket) => {
    socket.pause()
    for (const [at, line] of lines.entries()) {
      // What a pipelining client sent stays unread behind the first message, as in servers that read message by message.
      if (socket.readableLength === 0 && (at === 0 || handshake === 'sequential'))
        await new Promise((resolve) => socket.once('readable', resolve))
      if (at > 0) socket.read()
      await say(socket, line)
    }
    if (lines.length === 0) await new Promise((resolve) => socket.once('readable', resolve))
    if (then === 'close') socket.destroy()
    if (then === 'reset') setImmediate(() => socket.resetAndDestroy())
  })
}
