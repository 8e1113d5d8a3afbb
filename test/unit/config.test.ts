/** What a config may say, its defaults, and what is said about a wrong one. */
import t from 'tap'
import { bufferMemory, connectionsFor, descriptorLimit, engineLimits, limitTexts } from '../../src/config/defaults.js'
import { parseGateway, parseHag } from '../../src/config/load.js'
import { faults, minimal } from '../support/config.js'

t.test('the least gateway config has every default', async (t) => {
  t.same(parseGateway(minimal, 'g.yaml'), {
    lan: { interfaces: ['br0'] },
    wans: [{ name: 'dsl', interface: 'dsl', role: 'normal' }],
    hags: [{ address: '203.0.113.3', weight: 1 }],
    bypass: [],
    listen: { port: 12345 },
    on_hag_down: 'direct',
    quic: 'allow',
    volume_file: '/var/lib/bondsocks/volume.json',
    prepared_connections: 16,
    connect_timeout_seconds: 3,
    idle_timeout_seconds: 7500,
    drain_seconds: 10,
    log_level: 'info',
  })
})

t.test('the least HAG config has every default', async (t) => {
  const { clients, ...rest } = parseHag('listen: {address: 203.0.113.3}\nclients: [10.0.0.0/8]\n', 'h.yaml')
  t.equal(clients.length, 1)
  t.same(rest, {
    listen: { address: '203.0.113.3', port: 1080 },
    allow: [],
    connect_timeout_seconds: 10,
    handshake_timeout_seconds: 10,
    initial_window: 48,
    idle_timeout_seconds: 7500,
    drain_seconds: 10,
    log_level: 'info',
  })
})

t.test('every fault is one line with its place, in the order of the file', async (t) => {
  const text = `lan:
  interfaces: [br0]
wans:
  - name: dsl
    interface: dsl
    gatway: 10.1.0.1
  - name: dsl
    interface: br0
    gateway: 5
hags:
  - address: 203.0.113.300
    port: "x"
    username: me
bypass: [10.0.0.0/33, 5]
on_hag_down: maybe
workers: 1.5
connect_timeout_seconds:
drian_seconds: 3
drain_seconds: -1
log_level: [info]
`
  t.same(
    faults(() => parseGateway(text, 'g.yaml')),
    [
      'g.yaml:6:5: wans[0]: unknown key `gatway`, did you mean `gateway`?',
      'g.yaml:9:14: wans[1].gateway: expected text, found 5',
      'g.yaml:11:14: hags[0].address: "203.0.113.300" is no IP address; write a host name as "name"',
      'g.yaml:12:11: hags[0].port: expected a number, found "x"',
      'g.yaml:14:10: bypass[0]: "10.0.0.0/33" is no network: write address/prefix, for instance 10.0.0.0/8',
      'g.yaml:14:23: bypass[1]: expected text, found 5',
      'g.yaml:15:14: on_hag_down: expected direct or reject, found "maybe"',
      'g.yaml:16:10: workers: expected a whole number, found 1.5',
      'g.yaml:17:25: connect_timeout_seconds: expected a number, found nothing',
      'g.yaml:18:1: unknown key `drian_seconds`, did you mean `drain_seconds`?',
      'g.yaml:19:16: drain_seconds: must be at least 0, found -1',
      'g.yaml:20:12: log_level: expected error or warn or info or debug, found a list',
    ],
  )
})

t.test('conflicts between keys', async (t) => {
  const text = `lan: {interfaces: [br0]}
wans:
  - {name: dsl, interface: br0}
  - {name: dsl, interface: br0}
hags:
  - {address: 203.0.113.3, username: me}
`
  t.same(
    faults(() => parseGateway(text, 'g.yaml')),
    [
      'g.yaml:4:12: wans[1].name: dsl is used twice',
      'g.yaml:4:28: wans[1].interface: br0 is used twice',
      'g.yaml:6:5: hags[0]: username and password_file go together',
    ],
  )
})

t.test('conflicts are found beside other faults', async (t) => {
  const text = `lan: {interface: br0}
wans:
  - {name: dsl, interface: ppp0, gateway: none}
  - {name: 5, interface: ppp0, role: backup}
  - {name: dsl}
  - dsl
hags:
  - {address: 203.0.113.3, username: me}
  - {adress: 203.0.113.3}
  -
`
  t.same(
    faults(() => parseGateway(text, 'g.yaml')),
    [
      'g.yaml:1:6: lan.interfaces: is required',
      'g.yaml:1:7: lan: unknown key `interface`, did you mean `interfaces`?',
      'g.yaml:3:43: wans[0].gateway: "none" is no IP address',
      'g.yaml:4:12: wans[1].name: expected text, found 5',
      'g.yaml:4:26: wans[1].interface: ppp0 is used twice',
      'g.yaml:5:5: wans[2].interface: is required',
      'g.yaml:5:12: wans[2].name: dsl is used twice',
      'g.yaml:6:5: wans[3]: expected keys with values, found "dsl"',
      'g.yaml:8:5: hags[0]: username and password_file go together',
      'g.yaml:9:6: hags[1]: unknown key `adress`, did you mean `address`?',
      'g.yaml:10:4: hags[2]: expected keys with values, found nothing',
    ],
  )
  for (const wans of ['5', '[5]', '{a: 1}', '[[]]', '[{name: {}, interface: []}]', 'null'])
    t.match(
      faults(() => parseGateway(`lan: {interfaces: [br0]}\nwans: ${wans}\nhags: [{address: 203.0.113.3}]\n`, 'g.yaml')).join(),
      /wans/,
    )
  t.match(
    faults(() => parseHag('listen: {address: 203.0.113.3}\nclients: [0.0.0.0/0]\nalow: []\n', 'h.yaml')),
    [/h\.yaml:2:10: clients: they let everybody in/, /h\.yaml:3:1: unknown key `alow`/],
  )
})

t.test('missing and empty', async (t) => {
  const required = ['lan', 'wans', 'hags'].map((key) => `g.yaml:1:1: ${key}: is required`)
  t.same(
    faults(() => parseGateway('{}', 'g.yaml')),
    required,
  )
  t.same(
    faults(() => parseGateway('', 'g.yaml')),
    ['g.yaml:1:1: expected keys with values, found nothing'],
  )
  t.same(
    faults(() => parseGateway('lan: {interfaces: []}\nwans: []\nhags: {}\n', 'g.yaml')),
    [
      'g.yaml:1:19: lan.interfaces: needs at least one entry',
      'g.yaml:2:7: wans: needs at least one entry',
      'g.yaml:3:7: hags: expected a list, found keys with values',
    ],
  )
})

t.test('text that is no YAML', async (t) => {
  t.same(
    faults(() => parseGateway('lan: [br0\nwans: x\n', 'g.yaml')),
    ['g.yaml:2:1: Flow sequence in block collection must be sufficiently indented and end with a ]'],
  )
  t.same(
    faults(() => parseGateway(`${minimal}listen: {}\nlisten: {}\n`, 'g.yaml')),
    ['g.yaml:9:1: Map keys must be unique'],
  )
})

t.test('the wrong kind of config says which command takes it', async (t) => {
  t.same(
    faults(() => parseHag(minimal, 'g.yaml')),
    ['g.yaml:1:1: is a gateway config: use it with `bondsocks run`'],
  )
  t.same(
    faults(() => parseGateway('clients: [10.0.0.0/8]\n', 'h.yaml')),
    ['h.yaml:1:1: is a HAG config: use it with `bondsocks hag`'],
  )
})

t.test('a HAG has an address or a name, and an SRV name brings its port', async (t) => {
  const withHag = (hag: string) => faults(() => parseGateway(minimal.replace('address: 203.0.113.3', hag), 'g.yaml'))
  t.same(withHag('name: hag.example.net'), [])
  t.same(withHag('name: _bondsocks._tcp.example.net'), [])
  t.same(withHag('port: 1080'), ['g.yaml:7:5: hags[0]: write either address or name'])
  t.same(withHag('{address: 203.0.113.3, name: hag.example.net}'.replace(/[{}]/g, '').replace(', ', '\n    ')), [
    'g.yaml:7:5: hags[0]: write either address or name',
  ])
  t.same(withHag('name: _bondsocks._tcp.example.net\n    port: 1080'), [
    'g.yaml:7:5: hags[0]: the port comes from the SRV record: leave it out',
  ])
  t.same(withHag('name: 203.0.113.3'), ['g.yaml:7:11: hags[0].name: is an address: write it as "address"'])
  t.match(withHag('name: "a b"'), [/is no host name/])
})

t.test('one WAN at least is a normal one', async (t) => {
  const text = minimal.replace('interface: dsl', 'interface: dsl\n    role: backup')
  t.match(
    faults(() => parseGateway(text, 'g.yaml')),
    [/wans: one WAN at least must have the role normal/],
  )
})

t.test('defaults of the machine', async (t) => {
  const limits =
    'Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n'
  t.equal(descriptorLimit(limits), 1024)
  t.equal(descriptorLimit(limits.replace('1024', 'unlimited')), Number.POSITIVE_INFINITY)
  t.equal(connectionsFor(1024), 336)
  t.equal(connectionsFor(64), 16)
  t.equal(connectionsFor(Number.POSITIVE_INFINITY), 65_536)
  t.same(engineLimits({ workers: 3, max_connections: 7, buffer_memory_mb: 16 }), {
    workers: 3,
    maxConnections: 7,
    maxConnectionsPerClient: 6,
    bufferMemory: 16 * 1024 * 1024,
  })
  t.equal(bufferMemory(2 ** 33, 0), 2 ** 28)
  t.equal(bufferMemory(2 ** 33, 2 ** 64), 2 ** 28, 'where no control group bounds it')
  t.equal(bufferMemory(2 ** 33, 2 ** 29), 2 ** 24, 'where one does')
  t.equal(bufferMemory(2 ** 20, 0), 2 ** 20)
  t.same(limitTexts({}, 1024), {
    connections: '336 connections (as many as 1024 descriptors carry)',
    perClient: '252 connections (three quarters of all 336; max_connections_per_client)',
    descriptors: '1024 descriptors',
  })
  t.match(limitTexts({ max_connections: 7, max_connections_per_client: 2 }, 1024), {
    connections: '7 connections (max_connections)',
    perClient: '2 connections (max_connections_per_client)',
  })
  const { workers } = engineLimits({})
  t.ok(workers >= 1 && workers <= 4)
})

t.test('a HAG that lets everybody in without a login', async (t) => {
  const clients = (...networks: string[]) => `clients: [${networks.map((one) => `'${one}'`).join(', ')}]\n`
  const hag = (more: string, address = '203.0.113.3') =>
    faults(() => parseHag(`listen: {address: '${address}'}\n${more}`, 'h.yaml'))
  const open = [
    ['0.0.0.0/0'],
    ['::/0'],
    ['2000::/3'],
    ['10.0.0.0/8', '0.0.0.0/0'],
    ['0.0.0.0/1', '128.0.0.0/1'],
    // All that is left out is multicast and private.
    ['128.0.0.0/2', '192.0.0.0/3', '0.0.0.0/1'],
    ['2000::/4', '3000::/4'],
  ]
  for (const networks of open) {
    t.match(hag(clients(...networks)), [/^h\.yaml:2:10: clients: they let everybody in/], networks.join())
    t.same(hag(`${clients(...networks)}users_file: users\n`), [], `${networks}, but with users`)
    t.same(hag(clients(...networks), '127.0.0.1'), [], `${networks}, but nobody gets there`)
  }
  const listed = [['10.0.0.0/8'], ['0.0.0.0/1'], ['0.0.0.0/1', '128.0.0.0/2'], ['2001:db8::/32'], ['2000::/4'], ['fc00::/7']]
  for (const networks of listed) t.same(hag(clients(...networks)), [], networks.join())
})

t.test('an IPv6 address that YAML takes for a key', async (t) => {
  const hag = (text: string) => faults(() => parseHag(text, 'h.yaml'))
  const quotes = (address: string) => `an address that ends with a colon needs quotes: write '${address}'`
  const clients = 'clients: [10.0.0.0/8]\n'
  t.same(hag(`listen:\n  address: ::\n${clients}`), [`h.yaml:2:12: ${quotes('::')}`])
  t.same(hag(`listen:\n  address: ::   # all\n  port: 1081\n${clients}`), [`h.yaml:2:12: ${quotes('::')}`])
  t.same(hag(`listen: {address: 2001:db8::}\n${clients}`), [`h.yaml:1:19: ${quotes('2001:db8::')}`])
  t.same(hag(`listen: {address: 203.0.113.3}\nclients: [10.0.0.0/8, 2001:DB8::]\n`), [
    `h.yaml:2:23: clients[1]: ${quotes('2001:DB8::')}`,
  ])
  t.same(hag(`listen: {address: '::'}\n${clients}`), [])
  t.same(hag(`listen: {address: ::1}\n${clients}`), [])
  t.match(hag(`listen:\n  address: a: b\n${clients}`), [/Nested mappings/], 'anything else')
})

t.test('several addresses to listen on', async (t) => {
  const hag = (address: string) => faults(() => parseHag(`listen: {address: ${address}}\nclients: [10.0.0.0/8]\n`, 'h.yaml'))
  t.same(hag("[203.0.113.3, '::1']"), [])
  t.same(hag('[203.0.113.3, x]'), ['h.yaml:1:33: listen.address[1]: "x" is no IP address'])
  t.same(hag('x'), ['h.yaml:1:19: listen.address: "x" is no IP address'])
  t.same(hag('[]'), ['h.yaml:1:19: listen.address: needs at least one entry'])
  t.same(hag('[::, 203.0.113.3]'), ["h.yaml:1:20: listen.address[0]: an address that ends with a colon needs quotes: write '::'"])
  t.same(hag('5'), ['h.yaml:1:19: listen.address: expected text, found 5'])
  t.same(hag(''), ['h.yaml:1:19: listen.address: expected text, found nothing'])
})
