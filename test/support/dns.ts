/** A name server for tests: what it answers can be changed at any time (RFC 1035; SRV by RFC 2782). UDP only. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { isIP } from 'node:net'

export interface Records {
  A?: string[]
  AAAA?: string[]
  SRV?: { priority: number; weight: number; port: number; target: string }[]
  /** Seconds; default 1. */
  ttl?: number
}

/** Names, in lower case, to their records; or no zone: `fail` answers SERVFAIL, `silent` nothing, `garbage` what is no answer. */
export type Zone = Record<string, Records> | 'fail' | 'silent' | 'garbage'

const types = { A: 1, AAAA: 28, SRV: 33 } as const
const codes = { ok: 0, serverFailure: 2, noSuchName: 3 } as const

let zone: Zone = {}
let asked = 0

export const dns = {
  dns: async (port: number, address: string): Promise<number> => {
    const socket = createSocket('udp4')
    socket.on('message', (query, { port, address }) => {
      asked += 1
      const reply = answer(query)
      if (reply !== undefined) socket.send(reply, port, address)
    })
    socket.bind(port, address)
    await once(socket, 'listening')
    return port
  },

  /** What it answers from now on. */
  dnsZone: async (now: Zone): Promise<void> => {
    zone = now
  },

  /** How many questions have come so far. */
  dnsAsked: async (): Promise<number> => asked,
}

function answer(query: Buffer): Buffer | undefined {
  if (zone === 'silent') return undefined
  if (zone === 'garbage')
    return Buffer.concat([query.subarray(0, 2), Buffer.from([0x81, 0x80, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xc0])])
  const { name, type, end } = question(query)
  const records = zone === 'fail' ? undefined : zone[name.toLowerCase()]
  const code = zone === 'fail' ? codes.serverFailure : records === undefined ? codes.noSuchName : codes.ok
  const data = records === undefined ? [] : dataOf(records, type)
  const head = Buffer.alloc(12)
  query.copy(head, 0, 0, 2)
  // A reply, recursion asked for and available.
  head.writeUInt16BE(0x8180 | code, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(data.length, 6)
  const answers = data.map((one) => {
    // The name is the question's, which begins at 12.
    const fixed = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 0, 0, 0])
    fixed.writeUInt32BE(records?.ttl ?? 1, 6)
    fixed.writeUInt16BE(one.length, 10)
    return Buffer.concat([fixed, one])
  })
  return Buffer.concat([head, query.subarray(12, end), ...answers])
}

function question(query: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = []
  let at = 12
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join('.'), type: query.readUInt16BE(at + 1), end: at + 5 }
}

function dataOf({ A = [], AAAA = [], SRV = [] }: Records, type: number): Buffer[] {
  if (type === types.A) return A.map((address) => Buffer.from(address.split('.').map(Number)))
  if (type === types.AAAA) return AAAA.map(bytes6)
  if (type !== types.SRV) return []
  return SRV.map(({ priority, weight, port, target }) => {
    const fixed = Buffer.alloc(6)
    fixed.writeUInt16BE(priority, 0)
    fixed.writeUInt16BE(weight, 2)
    fixed.writeUInt16BE(port, 4)
    return Buffer.concat([
      fixed,
      ...target.split('.').map((label) => Buffer.from(`${String.fromCharCode(label.length)}${label}`)),
      Buffer.alloc(1),
    ])
  })
}

function bytes6(address: string): Buffer {
  if (isIP(address) !== 6) throw new Error(`${address} is no IPv6 address`)
  const [front = '', back] = address.split('::')
  const words = (text: string) => text.split(':').filter(Boolean)
  const [left, right] = [words(front), words(back ?? '')]
  const all = back === undefined ? left : [...left, ...Array(8 - left.length - right.length).fill('0'), ...right]
  return Buffer.concat(all.map((word) => Buffer.from(word.padStart(4, '0'), 'hex')))
}
