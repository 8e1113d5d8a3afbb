/**
 * Traffic whose every byte is known and whose every pause is measured, at the LAN client.
 *   serve PORT                      answers both kinds of clients
 *   stream ADDRESS PORT MBIT        one connection, paced to so many Mbit/s, or as fast as it goes where that is 0
 *   dial ADDRESS PORT BYTES EVERY   a new connection every so many milliseconds, for so many bytes each
 * Clients print `started`, run until SIGTERM (a stream also until its connection ends), and print what they saw as a line of JSON.
 */
import { createConnection, createServer, type Socket } from 'node:net'
import { KnownBytes } from '../files.js'
import { type Dialled, now, type StreamReport } from '../traffic.js'

const blockBytes = 16_384
/** A paced stream writes so often. */
const tickMs = 5
const minPauseMs = 30
/** How long a client waits for the rest of the answer. */
const patienceMs = 10_000

/** The client's first line is `MBIT BYTES`. 0 Mbit/s: not paced. 0 bytes: until the client ends, and then to the end of a block. */
function serve(port: number): void {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // A client may go away at any time.
    socket.on('error', () => socket.destroy())
    socket.once('data', (line) => {
      const [mbit = 0, bytes = 0] = line.toString().trim().split(' ').map(Number)
      const known = new KnownBytes()
      if (bytes > 0) socket.end(known.next(bytes))
      else if (mbit === 0) flood(socket, known)
      else pace(socket, known, mbit)
    })
  })
  server.listen(port, '::', 4096, () => process.stdout.write('serving\n'))
}

function flood(socket: Socket, known: KnownBytes): void {
  let isAsked = true
  const fill = () => {
    while (isAsked && socket.write(known.next(blockBytes)));
  }
  socket.on('drain', fill)
  socket.once('end', () => {
    isAsked = false
    socket.end()
  })
  fill()
}

function pace(socket: Socket, known: KnownBytes, mbit: number): void {
  const started = now()
  let sent = 0
  const timer = setInterval(() => {
    const due = Math.floor(((now() - started) * mbit * 1e6) / 8000)
    // More than a block if this process was stopped for a while.
    while (sent < due) sent += send(Math.min(due - sent, blockBytes))
  }, tickMs)
  const send = (bytes: number) => {
    socket.write(known.next(bytes))
    return bytes
  }
  socket.once('end', () => {
    clearInterval(timer)
    socket.end(known.next((blockBytes - (sent % blockBytes)) % blockBytes))
  })
  socket.once('close', () => clearInterval(timer))
}

function stream(host: string, port: number, mbit: number): void {
  const known = new KnownBytes()
  const report: StreamReport = { bytes: 0, intact: true, ending: '', endedAt: 0, pauses: [] }
  const socket = createConnection({ host, port, allowHalfOpen: true, noDelay: true })
  let last: number | undefined
  let isStopped = false
  const pauseUntil = (until: number) => {
    if (last !== undefined && until - last >= minPauseMs) report.pauses.push({ until, ms: until - last })
    last = until
  }
  const finish = (ending: string) => {
    if (report.ending !== '') return
    report.endedAt = now()
    report.ending = isStopped && ending === 'end' ? 'stopped' : ending
    if (!isStopped) pauseUntil(report.endedAt)
    report.intact &&= report.ending !== 'stopped' || report.bytes % blockBytes === 0
    print(report)
  }
  socket.on('connect', () => socket.write(`${mbit} 0\n`))
  socket.on('data', (data) => {
    if (last === undefined) process.stdout.write('started\n')
    if (!isStopped) pauseUntil(now())
    report.bytes += data.length
    report.intact &&= known.matches(data)
  })
  socket.on('end', () => finish('end'))
  socket.on('error', ({ code = 'error' }: NodeJS.ErrnoException) => finish(code))
  process.once('SIGTERM', () => {
    pauseUntil(now())
    isStopped = true
    socket.end()
    setTimeout(() => finish('ETIMEDOUT'), patienceMs)
  })
}

function dial(host: string, port: number, bytes: number, everyMs: number): void {
  const dialled: Dialled[] = []
  let open = 0
  let isStopped = false
  const one = () => {
    const at = now()
    const known = new KnownBytes()
    let received = 0
    let error: string | undefined
    open += 1
    const socket = createConnection({ host, port, noDelay: true }, () => socket.write(`0 ${bytes}\n`))
    socket.setTimeout(patienceMs, () => socket.destroy(Object.assign(new Error(), { code: 'ETIMEDOUT' })))
    socket.on('data', (data) => {
      if (!known.matches(data)) error = 'changed'
      received += data.length
    })
    socket.on('error', ({ code = 'error' }: NodeJS.ErrnoException) => {
      error = code
    })
    socket.on('close', () => {
      if (received !== bytes) error ??= 'cut short'
      dialled.push({ at, ms: now() - at, error })
      open -= 1
      if (isStopped && open === 0) print(dialled.sort((one, other) => one.at - other.at))
    })
  }
  const timer = setInterval(one, everyMs)
  one()
  process.stdout.write('started\n')
  process.once('SIGTERM', () => {
    isStopped = true
    clearInterval(timer)
    if (open === 0) print(dialled)
  })
}

function print(report: unknown): void {
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0))
}

const [verb, ...words] = process.argv.slice(2)
const numbers = words.map(Number)
if (verb === 'serve') serve(numbers[0] ?? 0)
if (verb === 'stream') stream(words[0] ?? '', numbers[1] ?? 0, numbers[2] ?? 0)
if (verb === 'dial') dial(words[0] ?? '', numbers[1] ?? 0, numbers[2] ?? 0, numbers[3] ?? 0)
