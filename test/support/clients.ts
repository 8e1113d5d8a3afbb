/** Clients of the near end: each does one thing that a LAN device does, and returns what it saw. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { SocksClient, type SocksClientOptions } from 'socks'
import { codeOf, exchange, open, type Target } from './exchange.js'
import { writeStream } from './servers.js'
import { Check, streamSha256 } from './stream.js'

export interface Transfer {
  intact: boolean
  bytes: number
  sha256: string
  seconds: number
  /** The longest time without a byte. */
  pauseMs: number
  /** The errno, if the connection broke. */
  error?: string
}

const held: Socket[] = []
const uploading: Socket[] = []
const unasked: Socket[] = []
const stalled: { socket: Socket; check: Check; bytes: number }[] = []

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function download({ bytes, seed = 0, ...target }: Target & { bytes: number; seed?: number }): Promise<Transfer> {
  const check = new Check(seed)
  const end = await exchange(
    target,
    (socket) => socket.write(`GET ${bytes} ${seed}\n`),
    (data) => check.add(data),
  )
  return { intact: check.isIntact(bytes), bytes: check.bytes, sha256: check.sha256(), ...end }
}

/** Sends everything, ends its direction, and only then receives the server's answer: count and checksum, then `back` bytes. */
async function halfClose({ bytes, back = bytes, seed = 0, ...target }: Target & { bytes: number; back?: number; seed?: number }) {
  const check = new Check(seed + 1)
  let head = ''
  const end = await exchange(
    target,
    async (socket) => {
      socket.write(`${seed} ${back}\n`)
      if (await writeStream(socket, seed, bytes)) socket.end()
    },
    (data) => {
      if (head.includes('\n')) return check.add(data)
      const newline = data.indexOf('\n')
      head += data.subarray(0, newline < 0 ? data.length : newline + 1).toString()
      if (newline >= 0 && newline + 1 < data.length) check.add(data.subarray(newline + 1))
    },
  )
  const intact = head === `${bytes} true ${streamSha256(seed, bytes)}\n` && check.isIntact(back)
  return { intact, bytes: check.bytes, sha256: head.trim().split(' ')[2] ?? '', ...end }
}

export const clients = {
  download,
  halfClose,

  /** `count` transfers at once, each with a seed of its own; returns what went wrong, so an empty list is a success. */
  many: async (kind: 'download' | 'halfClose', count: number, transfer: Target & { bytes: number }): Promise<Transfer[]> => {
    const one = kind === 'download' ? download : halfClose
    const all = await Promise.all(Array.from({ length: count }, (_, seed) => one({ ...transfer, seed })))
    return all.filter(({ intact, error }) => !intact || error !== undefined)
  },

  /** `count` downloads without an end: the bytes that each one gets within `ms` once they have run for `warmMs`. */
  compete: async (target: Target, count: number, warmMs: number, ms: number): Promise<number[]> => {
    const got = Array<number>(count).fill(0)
    const sockets = got.map((_, index) => {
      const socket = open(target)
      socket.on('error', () => {})
      socket.on('connect', () => socket.write(`GET 1000000000000 ${index}\n`))
      return socket.on('data', ({ length }) => (got[index] = (got[index] ?? 0) + length))
    })
    await new Promise((resolve) => setTimeout(resolve, warmMs))
    const before = [...got]
    await new Promise((resolve) => setTimeout(resolve, ms))
    const within = got.map((bytes, index) => bytes - (before[index] ?? 0))
    for (const socket of sockets) socket.resetAndDestroy()
    return within
  },

  /**
   * `count` connections at once that send and receive without an end, for `ms`: what each one has received from `fromMs` on, and when and
   * how each one ended that did.
   */
  crowd: async (target: Target, count: number, fromMs: number, ms: number) => {
    const started = performance.now()
    const ended: { code: string; ms: number }[] = []
    const received = Array<number>(count).fill(0)
    const sockets = received.map((_, index) => {
      const socket = open(target)
      const end = (code: string) => ended.push({ code, ms: Math.round(performance.now() - started) })
      socket.on('error', (error) => end(codeOf(error))).on('end', () => end('end'))
      socket.on('data', ({ length }) => (received[index] = (received[index] ?? 0) + length))
      socket.on('connect', () => writeStream(socket, index, Number.POSITIVE_INFINITY))
      return socket
    })
    await new Promise((resolve) => setTimeout(resolve, fromMs))
    const before = [...received]
    await new Promise((resolve) => setTimeout(resolve, ms - fromMs))
    for (const socket of sockets) socket.resetAndDestroy()
    return { ended, received: received.map((bytes, index) => bytes - (before[index] ?? 0)), total: received }
  },

  /** Opens `count` connections to a `source` for `stall`, and asks for nothing yet. */
  openUnasked: async (target: Target, count: number): Promise<void> => {
    const sockets = Array.from({ length: count }, () => open(target))
    unasked.push(...sockets)
    await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  },

  /**
   * Begins `count` downloads, over what `openUnasked` has opened if there is any, and reads no more once each has `stopAt` bytes; resolves
   * then. `readOn` goes on with them.
   */
  stall: async (target: Target, count: number, bytes: number, stopAt: number): Promise<void> => {
    const one = (seed: number) =>
      new Promise<void>((resolve, reject) => {
        const socket = unasked.pop() ?? open(target)
        const check = new Check(seed)
        stalled.push({ socket, check, bytes })
        socket.on('error', reject)
        socket.write(`GET ${bytes} ${seed}\n`)
        socket.on('data', (data) => {
          const before = check.bytes
          check.add(data)
          if (before >= stopAt || check.bytes < stopAt) return
          socket.pause()
          resolve()
        })
      })
    await Promise.all(Array.from({ length: count }, (_, seed) => one(seed)))
  },

  /** Reads the stalled downloads to their end; how many are intact, and for each the longest pause, ms, and the seconds until its end. */
  readOn: async (): Promise<{ intact: number; seconds: number[]; pausesMs: number[] }> => {
    const started = performance.now()
    const all = stalled.splice(0).map(async ({ socket, check, bytes }) => {
      let last = started
      let pauseMs = 0
      socket.on('data', () => {
        const now = performance.now()
        pauseMs = Math.max(pauseMs, now - last)
        last = now
      })
      socket.resume()
      await Promise.race([once(socket, 'end'), pause(60_000)])
      socket.end()
      return { isIntact: check.isIntact(bytes), seconds: (performance.now() - started) / 1000, pauseMs }
    })
    const done = await Promise.all(all)
    return {
      intact: done.filter(({ isIntact }) => isIntact).length,
      seconds: done.map(({ seconds }) => seconds),
      pausesMs: done.map(({ pauseMs }) => Math.round(pauseMs)),
    }
  },

  /** Begins `count` connections at once that only send, until `endUploads`. */
  uploads: async (target: Target, count: number): Promise<void> => {
    for (let seed = 0; seed < count; seed++) {
      const socket = open(target)
      uploading.push(socket)
      socket.on('error', () => {})
      socket.on('connect', async () => {
        socket.write(`${seed} 0\n`)
        await writeStream(socket, seed, Number.POSITIVE_INFINITY)
      })
    }
  },

  /** Ends them; how many had ended before. */
  endUploads: async (): Promise<number> => {
    const all = uploading.splice(0)
    const ended = all.filter(({ destroyed }) => destroyed).length
    for (const socket of all) socket.resetAndDestroy()
    return ended
  },

  /**
   * Connects, sends `text`, and waits for the end, for `characters` to come, or for 20 s: the text that came, and how it ended (`end`, an
   * errno, `open`).
   */
  talk: async (
    target: Target,
    text = '',
    characters = Number.POSITIVE_INFINITY,
  ): Promise<{ received: string; ending: string; ms: number }> => {
    const started = performance.now()
    const socket = open(target)
    let received = ''
    let ending = 'open'
    let enough: (_?: unknown) => void = () => {}
    const hasEnough = new Promise((resolve) => (enough = resolve))
    socket.on('data', (data) => {
      received += data.toString()
      if (received.length >= characters) enough()
    })
    socket.on('error', (reason) => (ending = codeOf(reason)))
    socket.on('end', () => {
      ending = 'end'
      socket.end()
    })
    socket.on('connect', () => text && socket.write(text))
    const timer = setTimeout(enough, 20_000)
    await Promise.race([once(socket, 'close').catch(() => {}), hasEnough])
    clearTimeout(timer)
    const ms = performance.now() - started
    socket.destroy()
    return { received, ending, ms }
  },

  /** Opens `count` connections to an echo server, proves each with one byte, and keeps them; returns how many are held now. */
  hold: async (target: Target, count: number): Promise<number> => {
    const one = async () => {
      const socket = open(target)
      await once(socket, 'connect')
      socket.write('x')
      await once(socket, 'data')
      socket.on('error', () => {})
      held.push(socket)
    }
    for (let done = 0; done < count; done += 100) await Promise.all(Array.from({ length: Math.min(100, count - done) }, one))
    return held.length
  },

  /** How many of the held connections are still alive. */
  alive: async (): Promise<number> => held.filter((socket) => !socket.destroyed && socket.readable).length,

  /** Sends something on each held connection, and returns how many answer within `timeoutMs`. */
  ping: async (timeoutMs = 15_000): Promise<number> => {
    let answers = 0
    const all = held.map(async (socket) => {
      if (socket.destroyed) return
      socket.write('y')
      await once(socket, 'data')
      answers += 1
    })
    await Promise.race([Promise.allSettled(all), new Promise((resolve) => setTimeout(resolve, timeoutMs))])
    return answers
  },

  /**
   * Asks a `source` for `bytes`, reads from `readAfterMs` on, leaves its own direction open behind the server's end, and says a word `wordAfterMs`
   * after that: what came, and how it ended (`open`: not within 5 s of the word).
   */
  lateWord: async ({
    bytes,
    readAfterMs = 0,
    wordAfterMs,
    ...target
  }: Target & { bytes: number; readAfterMs?: number; wordAfterMs: number }) => {
    const check = new Check(0)
    const socket = open(target)
    const ended = once(socket, 'end')
    const closed = new Promise<string>((resolve) => socket.on('error', (reason) => resolve(codeOf(reason))))
    socket.write(`GET ${bytes} 0\n`)
    await pause(readAfterMs)
    socket.on('data', (data) => check.add(data))
    const ending = await Promise.race([closed, ended.then(() => undefined, codeOf)])
    if (ending !== undefined) return { intact: check.isIntact(bytes), ending }
    await pause(wordAfterMs)
    socket.write('x')
    const last = await Promise.race([closed, pause(5000).then(() => 'open')])
    socket.destroy()
    return { intact: check.isIntact(bytes), ending: last }
  },

  /** Closes the held connections: `fin` ends, `rst` aborts them. */
  release: async (how: 'fin' | 'rst'): Promise<void> => {
    for (const socket of held.splice(0)) how === 'fin' ? socket.destroy() : socket.resetAndDestroy()
  },

  /** Sends a datagram: what came back within 2 s (`answer`, an errno, `silence`), and when. */
  datagram: async ({ host, port }: Target): Promise<{ came: string; ms: number }> => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    const came = new Promise<string>((resolve) => {
      socket.on('message', () => resolve('answer')).on('error', (reason) => resolve(codeOf(reason)))
      setTimeout(resolve, 2000, 'silence').unref()
    })
    // Connected, as browsers' sockets are: only then the kernel reports ICMP errors.
    socket.connect(port, host)
    await once(socket, 'connect')
    const started = performance.now()
    socket.send('hello')
    const what = await came
    socket.close()
    return { came: what, ms: performance.now() - started }
  },

  /** Connects, sends a little, and goes away `afterMs` after that, whatever has happened by then. */
  vanish: async (target: Target, afterMs: number, how: 'fin' | 'rst', text = 'GET 1000000 1\n'): Promise<void> => {
    const socket = open(target)
    socket.on('error', () => {})
    socket.on('connect', () => socket.write(text))
    await new Promise((resolve) => setTimeout(resolve, afterMs))
    how === 'fin' ? socket.destroy() : socket.resetAndDestroy()
  },

  /** Asks a SOCKS5 server for `destination` with the `socks` package, then for `bytes` from a `source` there. */
  socks: async (
    proxy: Target & { userId?: string; password?: string },
    destination: Target,
    bytes = 0,
  ): Promise<{ intact: boolean } | { refusal: string }> => {
    const options: SocksClientOptions = { command: 'connect', proxy: { ...proxy, type: 5 }, destination, timeout: 15_000 }
    try {
      const { socket } = await SocksClient.createConnection(options)
      const check = new Check(0)
      socket.on('data', (data) => check.add(data))
      socket.write(`GET ${bytes} 0\n`)
      await once(socket, 'end')
      return { intact: check.isIntact(bytes) }
    } catch (error) {
      return { refusal: (error as Error).message }
    }
  },
}
