/** The soak's hostile clients: what they do must harm nobody else. Runs in agents in the LAN and outside. */
import { randomBytes } from 'node:crypto'
import { createConnection, type Socket } from 'node:net'
import { sleep } from '../support/wait.js'
import { Chance } from './random.js'

export interface Targets {
  seed: number
  /** The soak's server, through the gateway. */
  server?: { host: string; port: number }
  /** The gateway's own listener, for clients that connect to it without having been redirected. */
  redirector?: { host: string; port: number }
  hag?: { host: string; port: number }
}

let goesOn = false
let lastId = 1_000_000_000
const open = new Set<Socket>()
const counts: Record<string, number> = {}

interface Target {
  host: string
  port: number
  localPort?: number
}

function connect(target: Target, what: string, onConnect: (socket: Socket) => void): Socket {
  counts[what] = (counts[what] ?? 0) + 1
  const socket = createConnection(target)
  open.add(socket)
  socket.on('error', () => {})
  socket.on('close', () => open.delete(socket))
  socket.on('connect', () => onConnect(socket))
  return socket
}

type Deed = (chance: Chance, target: Target) => void | Promise<void>

const atServer: Record<string, [perSecond: number, Deed]> = {
  'slow readers': [
    0.3,
    async (chance, target) => {
      const socket = connect(target, 'slow readers', () => socket.write(`${++lastId} get 2000000 0\n`))
      socket.pause()
      for (let i = 0; i < 100 && goesOn; i++) {
        await sleep(100)
        socket.read(chance.between(1, 1000))
      }
      socket.resetAndDestroy()
    },
  ],
  'readers that stop': [
    0.6,
    async (chance, target) => {
      const socket = connect(target, 'readers that stop', () => socket.write(`${++lastId} get 3000000 0\n`))
      socket.once('data', () => socket.pause())
      for (const until = Date.now() + chance.between(3000, 12_000); goesOn && Date.now() < until; ) await sleep(100)
      chance.next() < 0.5 ? socket.resetAndDestroy() : socket.destroy()
    },
  ],
  resetters: [
    6,
    async (chance, target) => {
      const socket = connect(target, 'resetters', () => socket.write(`${++lastId} get 100000 0\n`))
      await sleep(chance.between(0, 250))
      socket.resetAndDestroy()
    },
  ],
  'resetters of uploads': [
    1,
    async (chance, target) => {
      const socket = connect(target, 'resetters of uploads', () => {
        socket.write(`${++lastId} put 0 0\n`)
        socket.write(randomBytes(chance.size(1000, 300_000)))
      })
      await sleep(chance.between(0, 600))
      socket.resetAndDestroy()
    },
  ],
  garbage: [
    2,
    (chance, target) => {
      const socket = connect(target, 'garbage', () => socket.end(randomBytes(chance.size(1, 20_000))))
      socket.resume()
    },
  ],
}

const atRedirector: Record<string, [perSecond: number, Deed]> = {
  scanners: [
    2,
    (_, target) => {
      for (let i = 0; i < 10; i++) {
        const socket = connect(target, 'scanners', () => socket.destroy())
        setTimeout(() => socket.destroy(), 1000)
      }
    },
  ],
  'guests of the redirector': [
    1,
    async (chance, target) => {
      const socket = connect(target, 'guests of the redirector', () => socket.write('GET / HTTP/1.1\r\n\r\n'))
      socket.resume()
      await sleep(chance.between(0, 3000))
      socket.destroy()
    },
  ],
}

const greetings = [
  '\x05\x01\x00',
  '\x05',
  '\x05\xff\x00',
  'GET / HTTP/1.0\r\n\r\n',
  '\x04\x01\x00\x50\x01\x02\x03\x04\x00',
  '\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16',
]

/**
 * With a port below those that the kernel gives by itself (ip_local_port_range). Some of them are on the gateway's machine, where a socket that
 * is bound to no device can get the port of a running subflow, which is bound to one: the kernel compares the devices, too (inet_match). The
 * newer one then gets the packets of both, and the subflow is lost.
 */
const withOwnPort = (chance: Chance, target: Target): Target => ({ ...target, localPort: chance.between(20_000, 32_000) })

const atHag: Record<string, [perSecond: number, Deed]> = {
  'strangers at the HAG': [
    3,
    async (chance, target) => {
      const said = greetings[chance.between(0, greetings.length - 1)] as string
      const socket = connect(withOwnPort(chance, target), 'strangers at the HAG', () => socket.write(said, 'latin1'))
      socket.resume()
      for (const until = Date.now() + chance.between(0, 8000); goesOn && Date.now() < until; ) await sleep(100)
      chance.next() < 0.5 ? socket.resetAndDestroy() : socket.destroy()
    },
  ],
  'silent at the HAG': [
    2,
    async (chance, target) => {
      const socket = connect(withOwnPort(chance, target), 'silent at the HAG', () => {})
      for (const until = Date.now() + chance.between(0, 8000); goesOn && Date.now() < until; ) await sleep(100)
      socket.destroy()
    },
  ],
}

async function repeat(perSecond: number, deed: Deed, chance: Chance, target: Target): Promise<void> {
  while (goesOn) {
    await sleep((chance.next() * 2000) / perSecond)
    if (goesOn) void deed(chance, target)
  }
}

export const soakHostile = {
  soakHostile: async ({ seed, server, redirector, hag }: Targets): Promise<void> => {
    goesOn = true
    const chance = new Chance(seed)
    const start = (deeds: Record<string, [number, Deed]>, target: Target | undefined) => {
      if (target === undefined) return
      for (const [perSecond, deed] of Object.values(deeds)) void repeat(perSecond, deed, chance, target)
    }
    start(atServer, server)
    start(atRedirector, redirector)
    start(atHag, hag)
  },

  /** Ends all connections, and resolves when none is left. Returns how often each deed was done. */
  soakPeace: async (): Promise<Record<string, number>> => {
    goesOn = false
    await sleep(500)
    for (const socket of open) socket.destroy()
    for (const until = Date.now() + 10_000; open.size > 0 && Date.now() < until; ) await sleep(50)
    return counts
  },
}
