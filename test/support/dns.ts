/**
 * A name server for tests, whose answers can be changed at any time (RFC 1035; SRV by RFC 2782). Over UDP, and over TCP if the port is
 * free.
 */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, isIP } from 'node:net'

export interface Records {
  A?: string[]
  AAAA?: string[]
  SRV?: { priority: number; weight: number; port: number; target: string }[]
  /** Another name, whose records are part of the answer. */
  CNAME?: string
  /** Seconds; default 1. */
  ttl?: number
  /** Types that get no answer, or a late one. */
  silent?: ('A' | 'AAAA')[]
  delayMs?: number
  /** Over UDP only the first record, with the flag that makes the client ask over TCP. */
  truncated?: true
}

/** Names, in lower case, to their records; or no zone: `fail` answers SERVFAIL, `silent` nothing, `garbage` bytes that are no answer. */
export type Zone = Record<string, Records> | 'fail' | 'silent' | 'garbage'

const types = { A: 1, CNAME: 5, AAAA: 28, SRV: 33 } as const
const codes = { ok: 0, serverFailure: 2, noSuchName: 3 } as const

let zone: Zone = {}
let asked = 0

export const dns = {
  dns: async (port: number, address: string): Promise<number> => {
    const socket = createSocket('udp4')
    socket.on('message', (query, { port, address }) => {
      const reply = answer(query, 'udp')
      if (reply !== undefined) setTimeout(() => socket.send(reply, port, address), delay(query))
    })
    socket.bind(port, address)
    await once(socket, 'listening')
    const { port: bound } = socket.address()
    const server = createServer((client) => {
      let rest = Buffer.alloc(0)
      client.on('error', () => undefined).unref()
      client.on('data', (data) => {
        rest = Buffer.concat([rest, data])
        while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
          const reply = answer(rest.subarray(2, 2 + rest.readUInt16BE(0)), 'tcp')
          rest = rest.subarray(2 + rest.readUInt16BE(0))
          const length = Buffer.alloc(2)
          length.writeUInt16BE(reply?.length ?? 0)
          if (reply !== undefined) client.write(Buffer.concat([length, reply]))
        }
      })
    })
    server.listen(bound, address)
    await once(server, 'listening')
    socket.unref()
    server.unref()
    return bound
  },

  /** Sets what it answers from now on. */
  dnsZone: async (now: Zone): Promise<void> => {
    zone = now
  },

  /** How many questions have come so far. */
  dnsAsked: async (): Promise<number> => asked,
}

function delay(query: Buffer): number {
  return typeof zone === 'object' ? (zone[question(query).name.toLowerCase()]?.delayMs ?? 0) : 0
}

function answer(query: Buffer, protocol: 'udp' | 'tcp'): Buffer | undefined {
  asked += 1
  if (zone === 'silent') return undefined
  if (zone === 'garbage')
    return Buffer.concat([query.subarray(0, 2), Buffer.from([0x81, 0x80, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xc0])])
  const { name, type, end } = question(query)
  const records = zone === 'fail' ? undefined : zone[name.toLowerCase()]
  if (records?.silent?.some((one) => types[one] === type)) return undefined
  const code = zone === 'fail' ? codes.serverFailure : records === undefined ? codes.noSuchName : codes.ok
  const found = records === undefined ? [] : recordsOf(records, type)
  const isCut = records?.truncated !== undefined && protocol === 'udp'
  const told = isCut ? found.slice(0, 1) : found
  const head = Buffer.alloc(12)
  query.copy(head, 0, 0, 2)
  // A reply, recursion asked for and available.
  head.writeUInt16BE(0x8180 | (isCut ? 0x200 : 0) | code, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(told.length, 6)
  const answers = told.map(({ owner, type, ttl, data }) => {
    const fixed = Buffer.from([0, type, 0, 1, 0, 0, 0, 0, 0, 0])
    fixed.writeUInt32BE(ttl, 4)
    fixed.writeUInt16BE(data.length, 8)
    // Without an owner the name is the question's, which begins at 12.
    return Buffer.concat([owner === undefined ? Buffer.from([0xc0, 12]) : nameOf(owner), fixed, data])
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

interface Told {
  owner?: string
  type: number
  ttl: number
  data: Buffer
}

/** With what the name that it stands for has. */
function recordsOf(records: Records, type: number, owner?: string): Told[] {
  const named = { ...(owner !== undefined && { owner }), ttl: records.ttl ?? 1 }
  if (records.CNAME === undefined) return dataOf(records, type).map((data) => ({ ...named, type, data }))
  const target = typeof zone === 'object' ? zone[records.CNAME] : undefined
  return [
    { ...named, type: types.CNAME, data: nameOf(records.CNAME) },
    ...(target === undefined ? [] : recordsOf(target, type, records.CNAME)),
  ]
}

function nameOf(name: string): Buffer {
  const labels = name.split('.').map((label) => Buffer.from(`${String.fromCharCode(label.length)}${label}`))
  return Buffer.concat([...labels, Buffer.alloc(1)])
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
    return Buffer.concat([fixed, nameOf(target)])
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
