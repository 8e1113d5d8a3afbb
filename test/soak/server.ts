/** The soak's server: it does what a request's first line asks for, and counts how often each request came. */
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { writeStream } from '../support/servers.js'
import { Check } from '../support/stream.js'

/**
 * The first line is `<id> <kind> <bytes> <waitMs>`.
 * get: the answer is that many bytes of the id's stream, and the end.
 * put: the client sends a stream and ends; the answer is `<bytes> <intact>` and the end.
 * late: the client ends at once; after waitMs the answer is as for get.
 * echo: the bytes that follow come back.
 */
const kinds: Record<string, (socket: Socket, rest: Buffer, id: number, bytes: number, waitMs: number) => unknown> = {
  get: async (socket, _rest, id, bytes) => {
    if (await writeStream(socket, id, bytes)) socket.end()
  },
  put: (socket, rest, id) => {
    const check = new Check(id)
    if (rest.length > 0) check.add(rest)
    socket.on('data', (data) => check.add(data))
    socket.on('end', () => socket.end(`${check.bytes} ${check.differsAt === undefined}\n`))
  },
  late: (socket, _rest, id, bytes, waitMs) => {
    socket.resume()
    socket.on('end', () =>
      setTimeout(async () => {
        if (await writeStream(socket, id, bytes)) socket.end()
      }, waitMs),
    )
  },
  echo: (socket, rest) => {
    if (rest.length > 0) socket.write(rest)
    socket.pipe(socket)
  },
}

const seen = new Map<number, number>()

function serve(socket: Socket): void {
  socket.on('error', () => socket.destroy())
  let head = Buffer.alloc(0)
  const onHead = (data: Buffer) => {
    head = Buffer.concat([head, data])
    const newline = head.indexOf('\n')
    if (newline < 0 && head.length < 100) return
    socket.off('data', onHead)
    const [id = '', kind = '', bytes, waitMs] = head.subarray(0, newline).toString('latin1').split(' ')
    const act = kinds[kind]
    if (newline < 0 || act === undefined || !/^\d+$/.test(id)) {
      socket.destroy()
      return
    }
    seen.set(Number(id), (seen.get(Number(id)) ?? 0) + 1)
    act(socket, head.subarray(newline + 1), Number(id), Number(bytes), Number(waitMs))
  }
  socket.on('data', onHead)
  socket.on('end', () => socket.listeners('data').includes(onHead) && socket.end())
}

export const soakServer = {
  soakServer: async (port: number): Promise<number> => {
    const server = createServer({ allowHalfOpen: true }, serve)
    server.listen(port, '::', 4096)
    await once(server, 'listening')
    return port
  },

  /** How many requests came, and the ids of those that came more than once. */
  soakServed: async (): Promise<{ requests: number; twice: number[] }> => ({
    requests: seen.size,
    twice: [...seen].filter(([, times]) => times > 1).map(([id]) => id),
  }),
}
