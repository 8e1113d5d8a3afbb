import t from 'tap'
import { type Cidr, parseCidr } from '../../src/base/address.js'
import type { Native } from '../../src/engine/contract.js'
import { Access } from '../../src/hag/access.js'
import { OwnAddresses } from '../../src/hag/own-addresses.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'

const networks = (...texts: string[]) => texts.map((text) => parseCidr(text) as Cidr)
const own = new Set(['203.0.113.3', '2001:db8::3'])
const isOwn = (address: string) => own.has(address)
const strict = new Access({ clients: networks('10.0.0.0/8', '2001:db8:c::/48'), allow: [] }, isOwn)

t.test('clients', async (t) => {
  for (const address of ['10.1.2.3', '2001:db8:c::9']) t.equal(strict.client(address), true, address)
  for (const address of ['11.1.2.3', '2001:db8:d::9', '127.0.0.1', '']) t.equal(strict.client(address), false, address)
})

const refused = [
  ['unspecified', '0.0.0.0', '0.1.2.3', '::', '0:0:0:0:0:0:0:0'],
  ['loopback', '127.0.0.1', '127.255.255.254', '::1', '0:0:0:0:0:0:0:1'],
  [
    'private',
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '100.64.0.1',
    '100.127.255.255',
    'fc00::1',
    'fd12:3456::1',
  ],
  ['link-local', '169.254.169.254', 'fe80::1', 'febf::1', 'fec0::1'],
  ['multicast, reserved, broadcast', '224.0.0.1', '239.255.255.250', '240.0.0.1', '255.255.255.255', 'ff02::1', 'ff0e::1'],
  ['own', '203.0.113.3', '2001:db8::3', '2001:DB8:0:0:0:0:0:3'],
  ['v4-mapped', '::ffff:127.0.0.1', '::ffff:7f00:1', '::FFFF:10.1.2.3', '::ffff:203.0.113.3'],
  ['v4-compatible', '::127.0.0.1', '::a00:1'],
  ['v4-translated', '::ffff:0:127.0.0.1'],
  ['NAT64', '64:ff9b::127.0.0.1', '64:ff9b::a9fe:a9fe', '64:ff9b::203.0.113.3', '64:ff9b:1::8.8.8.8'],
  ['6to4', '2002:7f00:1::', '2002:c0a8:101::1', '2002:cb00:7103::1'],
  ['Teredo', '2001:0:4136:e378:8000:63bf:80ff:fffe', '2001::f5ff:fffe'],
  ['no IP address', 'localhost', 'fe80::1%eth0', '127.1', '0177.0.0.1', '2130706433', ''],
] as const

for (const [kind, ...addresses] of refused) {
  t.test(`refused: ${kind}`, async (t) => {
    for (const address of addresses) t.equal(strict.destination(address, 443), false, address)
  })
}

t.test('the Internet, and the documentation networks that labs use, are allowed', async (t) => {
  const allowed = [
    '8.8.8.8',
    '203.0.113.7',
    '198.51.100.7',
    '192.0.2.1',
    '172.32.0.1',
    '100.128.0.1',
    '11.0.0.1',
    '223.255.255.255',
  ]
  const six = ['2606:4700::1111', '2001:db8::7', '::ffff:8.8.8.8', '64:ff9b::808:808', '2002:808:808::1']
  for (const address of [...allowed, ...six]) t.equal(strict.destination(address, 443), true, address)
})

t.test('what the config allows is allowed, and nothing beside it', async (t) => {
  const access = new Access({ clients: [], allow: networks('10.20.0.0/16', '203.0.113.3', '::1') }, isOwn)
  for (const address of ['10.20.1.1', '203.0.113.3', '::1', '::ffff:10.20.1.1', '64:ff9b::10.20.1.1']) {
    t.equal(access.destination(address, 443), true, address)
  }
  for (const address of ['10.21.1.1', '127.0.0.1', '::ffff:10.21.1.1', '2001:db8::3'])
    t.equal(access.destination(address, 443), false, address)
})

t.test('the kernel is asked about every destination, and its silence lets nobody in', async (t) => {
  const asked: string[] = []
  const log = memoryLog()
  const kinds: Record<string, ReturnType<Native['routeTo']>> = {
    '198.51.100.1': 'local',
    '198.51.100.255': 'broadcast',
    '2001:db8::': 'anycast',
    '198.51.100.9': 'none',
  }
  const owner = new OwnAddresses((address, port) => {
    asked.push(`${address} ${port}`)
    if (address === '198.51.100.66') throw new Error('EMFILE: the kernel does not tell its routes')
    return kinds[address] ?? 'unicast'
  }, toLog(log))
  const access = new Access({ clients: [], allow: networks('198.51.100.255') }, (address, port) => owner.has(address, port))
  for (const address of ['198.51.100.1', '2001:db8::', '198.51.100.66', '64:ff9b::198.51.100.1', '2002:c633:6401::1'])
    t.equal(access.destination(address, 22), false, address)
  for (const address of ['198.51.100.9', '198.51.100.2', '2001:db8::1', '198.51.100.255'])
    t.equal(access.destination(address, 22), true, address)
  t.ok(asked.includes('198.51.100.1 22'), 'with its port')
  access.destination('198.51.100.66', 22)
  t.same(log.lines, ['error destinations are refused: EMFILE: the kernel does not tell its routes'], 'said once')
})
