/** A connection of the near end: it sends, and reads until the other end has ended. */
import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'

export interface Target {
  host: string
  port: number
  localAddress?: string
}

export function open(target: Target): Socket {
  const socket = createConnection({ ...target, allowHalfOpen: true })
  socket.setNoDelay(true)
  return socket
}

export const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

/** Sends, reads until the server ends, and hands every chunk to `onData`. */
export async function exchange(target: Target, send: (socket: Socket) => unknown, onData: (data: Buffer) => void) {
  const started = performance.now()
  const socket = open(target)
  let error: string | undefined
  let last = started
  let pauseMs = 0
  socket.on('data', (data) => {
    const now = performance.now()
    pauseMs = Math.max(pauseMs, now - last)
    last = now
    onData(data)
  })
  socket.on('error', (reason) => (error = codeOf(reason)))
  socket.on('connect', () => send(socket))
  socket.on('end', () => socket.end())
  await once(socket, 'close').catch(() => {})
  return { seconds: (performance.now() - started) / 1000, pauseMs, ...(error !== undefined && { error }) }
}
