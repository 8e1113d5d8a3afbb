import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import t from 'tap'
import { type Cidr, parseCidr } from '../../src/base/address.js'
import { Access } from '../../src/hag/access.js'

const access = new Access({ clients: [], allow: [] }, (address) => address === '203.0.113.3')

const inside = (text: string) => {
  const { address, prefix } = parseCidr(text) as Cidr
  const bytes = address.toByteArray()
  return fc.uint8Array({ minLength: bytes.length, maxLength: bytes.length }).map((random) =>
    bytes.map((byte, index) => {
      const fixed = Math.min(8, Math.max(0, prefix - index * 8))
      const mask = (0xff << (8 - fixed)) & 0xff
      return (byte & mask) | ((random[index] as number) & ~mask & 0xff)
    }),
  )
}

const bad4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '224.0.0.0/3',
]
const bad6 = ['::1/128', '::/128', 'fc00::/7', 'fe80::/10', 'ff00::/8']

const hex = (bytes: number[]) =>
  Array.from({ length: bytes.length / 2 }, (_, index) =>
    (((bytes[2 * index] as number) << 8) | (bytes[2 * index + 1] as number)).toString(16),
  )

/** Every way in which people and attackers write an IPv6 address. */
function spellings6(bytes: number[]): string[] {
  const groups = hex(bytes)
  const tail = bytes.slice(12).join('.')
  return [
    groups.join(':'),
    groups.map((group) => group.padStart(4, '0')).join(':'),
    groups.join(':').toUpperCase(),
    `${groups.slice(0, 6).join(':')}:${tail}`,
    ipaddr.fromByteArray(bytes).toString(),
    (ipaddr.fromByteArray(bytes) as ipaddr.IPv6).toRFC5952String(),
  ]
}

const zeros = (count: number) => new Array<number>(count).fill(0)

/** An IPv4 address as itself and inside the IPv6 addresses that lead to it. */
function disguises(four: number[]): string[] {
  const six = [
    [...zeros(10), 0xff, 0xff, ...four],
    [...zeros(8), 0xff, 0xff, 0, 0, ...four],
    [0, 0x64, 0xff, 0x9b, ...zeros(8), ...four],
    [0x20, 2, ...four, ...zeros(10)],
    [0x20, 1, ...zeros(10), ...four.map((byte) => byte ^ 0xff)],
  ]
  return [four.join('.'), ...six.flatMap(spellings6)]
}

t.test('an address inside a refused network is refused in every spelling and disguise', async (t) => {
  fc.assert(
    fc.property(fc.oneof(...bad4.map(inside)), (four) => {
      for (const text of disguises(four)) t.equal(access.destination(text, 443), false, text)
    }),
    { numRuns: 300 },
  )
  fc.assert(
    fc.property(fc.oneof(...bad6.map(inside)), (six) => {
      for (const text of spellings6(six)) t.equal(access.destination(text, 443), false, text)
    }),
    { numRuns: 300 },
  )
  for (const text of disguises([203, 0, 113, 3])) t.equal(access.destination(text, 443), false, text)
})

t.test('a public IPv4 address is allowed in every spelling', async (t) => {
  fc.assert(
    fc.property(inside('8.0.0.0/8'), (four) => {
      for (const text of disguises(four)) t.equal(access.destination(text, 443), true, text)
    }),
    { numRuns: 100 },
  )
})

t.test('no text at all makes it throw, and what is no address is refused', async (t) => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const verdict = access.destination(text, 443)
      if (!ipaddr.isValid(text)) t.equal(verdict, false, text)
    }),
    { numRuns: 500 },
  )
})
