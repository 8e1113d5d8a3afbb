/** Servers of the far end. Each listens on all addresses of both families, and returns its port. */

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Socket } from 'node:net'
import type { Writable } from 'node:stream'
import { Check, streamSlice } from './stream.js'

const chunkBytes = 65536

async function listen(port: number, onSocket: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    // A client may go away at any time; the test looks at what the client saw.
    socket.on('error', () => socket.destroy())
    onSocket(socket)
  })
  server.listen(port, '::', 4096)
  await once(server, 'listening')
  return port
}

/** Writes `bytes` bytes of the stream of `seed`, as fast as the other side takes them. Resolves false if it went away. */
export async function writeStream(socket: Writable, seed: number, bytes: number): Promise<boolean> {
  for (let at = 0; at < bytes; at += chunkBytes) {
    if (socket.destroyed) return false
    if (socket.write(streamSlice(seed, at, Math.min(chunkBytes, bytes - at)))) continue
    await new Promise<void>((resolve) => {
      const done = () => {
        socket.off('drain', done).off('close', done)
        resolve()
      }
      socket.on('drain', done).on('close', done)
    })
  }
  return !socket.destroyed
}

function receive(socket: Socket): void {
  let check: Check | undefined
  let back = 0
  socket.on('data', (data) => {
    let rest = data
    if (check === undefined) {
      const newline = data.indexOf('\n')
      const [seed = 0, wanted = 0] = data.subarray(0, newline).toString().split(' ').map(Number)
      check = new Check(seed)
      back = wanted
      rest = data.subarray(newline + 1)
    }
    if (rest.length > 0) check.add(rest)
  })
  socket.on('end', async () => {
    if (check !== undefined) {
      socket.write(`${check.bytes} ${check.differsAt === undefined} ${check.sha256()}\n`)
      await writeStream(socket, check.seed + 1, back)
    }
    socket.end()
  })
}

const late: Socket[] = []

export const servers = {
  /** Sends back what it gets; ends when the client ends. */
  echo: (port: number) => listen(port, (socket) => socket.pipe(socket)),

  /** Speaks first, then echoes. */
  greeter: (port: number) =>
    listen(port, (socket) => {
      socket.write('220 at your service\r\n')
      socket.pipe(socket)
    }),

  /** `GET <bytes> <seed>\n` streams that many bytes and ends. */
  source: (port: number) =>
    listen(port, (socket) => {
      const endUnasked = () => socket.end()
      socket.on('end', endUnasked)
      socket.once('data', async (line) => {
        socket.off('end', endUnasked)
        const [, bytes, seed] = line.toString().trim().split(' ').map(Number)
        if (await writeStream(socket, seed ?? 0, bytes ?? 0)) socket.end()
      })
    }),

  /**
   * The first line is `<seed> <back>`, then a stream until the client ends; only then it answers with `<bytes> <intact> <sha256>\n` and
   * `back` bytes of the stream of seed + 1, which prove that the way back still works.
   */
  sink: (port: number) => listen(port, receive),

  /** The same, but it reads nothing before `readLate`. */
  lateSink: (port: number) => listen(port, (socket) => late.push(socket)),

  readLate: async () => {
    for (const socket of late.splice(0)) receive(socket)
  },

  /** Sends for ever, and drops what it receives. */
  torrent: (port: number) =>
    listen(port, (socket) => {
      socket.on('end', () => socket.destroy()).resume()
      void writeStream(socket, 0, Number.POSITIVE_INFINITY)
    }),

  /** Aborts as soon as the client has sent something. */
  aborter: (port: number) =>
    listen(port, (socket) => {
      socket.on('end', () => socket.end())
      socket.once('data', () => socket.resetAndDestroy())
    }),

  /** Answers everything with bytes of no protocol. */
  garbage: (port: number) => listen(port, (socket) => socket.on('data', () => socket.write('\xff\xfe not SOCKS\r\n'.repeat(20)))),

  /** Echoes, and tells whether a client's connection ended (`end`) or was aborted (an errno): see `lastEnding`. */
  witness: (port: number) =>
    listen(port, (socket) => {
      socket.on('data', (data) => witnessed.push(data.toString()) && socket.write(data))
      socket.on('end', () => endings.push('end') && socket.end())
      socket.on('error', (error: NodeJS.ErrnoException) => endings.push(error.code ?? 'error'))
    }),

  /** Tells its clients the address that they come from. */
  mirror: (port: number) => listen(port, (socket) => socket.end(`${socket.remoteAddress?.replace(/^::ffff:/, '')}\n`)),

  /** Sends datagrams back. */
  udpEcho: async (port: number, address: string) => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
    socket.on('message', (data, { port, address }) => socket.send(data, port, address)).on('error', () => {})
    socket.bind(port, address)
    await once(socket, 'listening')
    return port
  },

  /** How the connections of `witness` ended, in order. */
  endings: async () => endings,

  /** What `witness` has received, in order. */
  witnessed: async () => witnessed,

  /** `GET /<seed>/<bytes>` over HTTP, for curl. */
  http: async (port: number) => {
    const server = createHttpServer(async (request, response) => {
      const [, seed, bytes] = (request.url ?? '').split('/').map(Number)
      response.writeHead(200, { 'content-length': bytes, 'content-type': 'application/octet-stream', connection: 'close' })
      response.on('error', () => {})
      if (await writeStream(response, seed ?? 0, bytes ?? 0)) response.end()
    })
    server.listen(port, '::', 1024)
    await once(server, 'listening')
    return port
  },
}

const endings: string[] = []
const witnessed: string[] = []
