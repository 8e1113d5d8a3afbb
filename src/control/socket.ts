/**
 * The control socket of a running gateway or HAG: a line of JSON for each request and each answer, described in docs/control.md. Whoever
 * connects can only hold up himself: one request of a connection is worked on at a time, and its answer must be taken before the next.
 */
import { chmodSync, chownSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { BondsocksError } from '../base/errors.js'
import { makeFolder } from '../network/lock.js'
import type { About, Answer } from './protocol.js'

export interface ControlOptions {
  path: string
  /** Id of the group that may connect beside root. */
  group?: number | undefined
  about: About
  /** By name; what they return is the answer. */
  commands: Readonly<Record<string, () => Promise<object>>>
  /** For the command `monitor`: calls back with each message from now on, until the function that it returns is called. */
  listen(listener: (message: object) => void): () => void
}

export interface ControlSocket {
  close(): void
}

/** Root only, or root and a group: `connect` needs write permission (unix(7)). */
const mode = { root: 0o600, group: 0o660 }
const maxRequestLength = 4096
const maxConnections = 32
/** A connection on which nothing moves for so long is closed. */
const idleMs = 60_000
/** Messages for a monitor that does not take them are left out and counted beyond so many bytes. */
const maxWaiting = 256 * 1024

/** Rejects with a system error: EADDRINUSE if another program answers there. */
export async function openControlSocket(options: ControlOptions): Promise<ControlSocket> {
  const { path, group } = options
  const open = new Set<Socket>()
  const monitors = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    socket.once('close', () => {
      open.delete(socket)
      monitors.delete(socket)
    })
    // A monitor may have nothing to read for long, but must take what there is.
    socket.setTimeout(idleMs, () => {
      if (!monitors.has(socket) || socket.writableLength > 0) socket.destroy()
    })
    // It went away, which is no fault of ours.
    socket.on('error', () => undefined)
    converse(socket, monitors, options).then(
      () => socket.end(),
      () => socket.destroy(),
    )
  })
  server.maxConnections = maxConnections
  makeFolder(dirname(path), process.getuid?.() ?? 0)
  // A killed process has left it. If somebody else is faster, `listen` fails.
  if (!(await isAnswered(path))) rmSync(path, { force: true })
  await listen(server, path)
  server.on('error', () => undefined)
  if (group !== undefined) {
    try {
      chownSync(path, -1, group)
      chmodSync(path, mode.group)
    } catch (error) {
      server.close()
      throw error
    }
  }
  server.unref()
  return {
    close() {
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    const former = process.umask(0o777 & ~mode.root)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
    process.umask(former)
  })
}

/** Whether a program listens there. */
export function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

async function converse(socket: Socket, monitors: Set<Socket>, { about, commands, listen }: ControlOptions): Promise<void> {
  const monitor = async () => {
    if (!monitors.has(socket)) follow(socket, listen)
    monitors.add(socket)
    return {}
  }
  const all = { ...commands, monitor }
  const say = (value: object) =>
    new Promise<void>((resolve, reject) =>
      socket.write(`${JSON.stringify(value)}\n`, (error) => (error ? reject(error) : resolve())),
    )
  await say(about)
  socket.setEncoding('utf8')
  let rest = ''
  for await (const chunk of socket) {
    const lines = `${rest}${chunk}`.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.trim() !== '') await say(await answerTo(line, all))
    if (rest.length > maxRequestLength) return say(failure('BAD_REQUEST', `a request is at most ${maxRequestLength} bytes long`))
  }
}

/** Hands messages over as lines. Whoever is too slow is told how many it missed, and holds nobody up. */
function follow(socket: Socket, listen: ControlOptions['listen']): void {
  let missed = 0
  const write = (message: object) => socket.write(`${JSON.stringify(message)}\n`)
  const end = listen((message) => {
    if (missed > 0 || socket.writableLength > maxWaiting) missed++
    else write(message)
  })
  socket.on('drain', () => {
    if (missed > 0) write({ missed })
    missed = 0
  })
  socket.once('close', end)
}

async function answerTo(line: string, commands: ControlOptions['commands']): Promise<Answer> {
  const name = commandOf(line)
  if (name === undefined) return failure('BAD_REQUEST', 'a request is a JSON object with a "command"')
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) return failure('UNKNOWN_COMMAND', `the commands are ${Object.keys(commands).join(', ')}`)
  try {
    return { [name]: await command() }
  } catch (error) {
    return failure(error instanceof BondsocksError ? error.code : 'FAILED', (error as Error).message)
  }
}

function commandOf(line: string): string | undefined {
  try {
    const { command } = Object(JSON.parse(line))
    return typeof command === 'string' ? command : undefined
  } catch {
    return undefined
  }
}

const failure = (code: string, message: string): Answer => ({ error: { code, message } })
