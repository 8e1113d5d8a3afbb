import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { canonicalName, NameResolver, type ResolverOptions, searchDomains } from '../../src/base/resolve.js'
import { dns, type Zone } from '../support/dns.js'

const never = new AbortController().signal
const server = `127.0.0.1:${await dns.dns(0, '127.0.0.1')}`
const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
t.teardown(() => rmSync(folder, { recursive: true }))
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

async function resolver(zone: Zone, options: ResolverOptions = {}) {
  await dns.dnsZone(zone)
  return new NameResolver({
    servers: [server],
    sourceFor: async () => '2001:db8::1',
    hostsFile: join(folder, 'none'),
    ...options,
  })
}

/** A name server that makes its answer of the question. */
async function answering(t: Test, answer: (query: Buffer) => Buffer): Promise<string> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  socket.on('message', (query, { port, address }) => socket.send(answer(query), port, address))
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return `127.0.0.1:${socket.address().port}`
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    ({ code }: NodeJS.ErrnoException) => code,
  )

t.test('both families in canonical text, with the least time to live', async (t) => {
  const names = await resolver({ 'a.example': { A: ['192.0.2.1', '192.0.2.2'], AAAA: ['2001:db8:0:0::7'], ttl: 60 } })
  t.same(await names.ask('a.example', never), { addresses: ['2001:db8::7', '192.0.2.1', '192.0.2.2'], lifetimeMs: 60_000 })
  const day = await resolver({ 'a.example': { A: ['192.0.2.1'], ttl: 86_400 } })
  t.same(await day.ask('a.example', never), { addresses: ['192.0.2.1'], lifetimeMs: 300_000 })
})

t.test('IPv6 comes first only where the kernel would use it', async (t) => {
  const zone = {
    'a.example': { A: ['192.0.2.1'], AAAA: ['2001:db8::7'] },
    'private.example': { A: ['10.0.0.1'], AAAA: ['fd00::7'] },
  }
  for (const [source, name, first] of [
    ['2001:db8::1', 'a.example', '2001:db8::7'],
    [undefined, 'a.example', '192.0.2.1'],
    ['fd00::1', 'a.example', '192.0.2.1'],
    ['fd00::1', 'private.example', 'fd00::7'],
  ] as const) {
    const names = await resolver(zone, { sourceFor: async () => source })
    t.equal((await names.ask(name, never)).addresses[0], first, `${name} from ${source}`)
  }
  await dns.dnsZone({ 'a.example': { A: ['127.0.0.2'], AAAA: ['::1'] } })
  t.equal((await new NameResolver({ servers: [server] }).ask('a.example', never)).addresses.length, 2, 'the kernel itself')
})

t.test('chains of aliases; what is too long for UDP', async (t) => {
  const many = Array.from({ length: 12 }, (_, index) => `192.0.2.${index + 1}`)
  const names = await resolver({
    'www.example': { CNAME: 'cdn.example', ttl: 300 },
    'cdn.example': { CNAME: 'edge.example', ttl: 5 },
    'edge.example': { A: ['192.0.2.9'], ttl: 60 },
    'big.example': { A: many, truncated: true },
    'loop.example': { CNAME: 'nowhere.example' },
  })
  t.same(await names.ask('www.example', never), { addresses: ['192.0.2.9'], lifetimeMs: 5000 })
  t.same((await names.ask('big.example', never)).addresses, many)
  t.equal(await codeOf(names.ask('loop.example', never)), 'ENODATA')
})

t.test('a server that never says whether there are IPv6 addresses delays nobody', async (t) => {
  const names = await resolver({ 'a.example': { A: ['192.0.2.1'], silent: ['AAAA'], ttl: 300 } })
  const before = performance.now()
  t.same(await names.ask('a.example', never), { addresses: ['192.0.2.1'], lifetimeMs: 5000 })
  t.ok(performance.now() - before < 900)
})

t.test('what fails', async (t) => {
  const names = await resolver({ 'empty.example': {} })
  t.equal(await codeOf(names.ask('nowhere.example', never)), 'ENOTFOUND')
  t.equal(await codeOf(names.ask('empty.example', never)), 'ENODATA')
  await dns.dnsZone('fail')
  t.equal(await codeOf(names.ask('a.example', never)), 'ESERVFAIL')
})

t.test('where a name server cannot tell, the next one is asked', async (t) => {
  await dns.dnsZone({ 'a.example': { A: ['192.0.2.1'] } })
  for (const [code, what] of [
    [1, 'EFORMERR'],
    [2, 'ESERVFAIL'],
    [4, 'ENOTIMP'],
    [5, 'EREFUSED'],
  ] as const) {
    const refusing = await answering(t, (query) =>
      Buffer.concat([query.subarray(0, 2), Buffer.from([0x81, 0x80 | code]), query.subarray(4)]),
    )
    const all = (...servers: string[]) => new NameResolver({ servers, hostsFile: join(folder, 'none') }).ask('a.example', never)
    t.same((await all(refusing, refusing, server)).addresses, ['192.0.2.1'], what)
    t.equal(await codeOf(all(refusing, refusing)), what, 'all of them')
  }
})

t.test('a server that says there is no such name is believed', async (t) => {
  await dns.dnsZone({ 'a.example': { A: ['192.0.2.1'] } })
  const absent = await answering(t, (query) =>
    Buffer.concat([query.subarray(0, 2), Buffer.from([0x81, 0x83]), query.subarray(4)]),
  )
  const names = new NameResolver({ servers: [absent, server], hostsFile: join(folder, 'none') })
  t.equal(await codeOf(names.ask('a.example', never)), 'ENOTFOUND')
})

t.test('without a descriptor left, or IPv6 in the kernel, IPv4 comes first', async (t) => {
  // The error of a socket that cannot be made comes from its bind.
  const noSocket = (type: 'udp6') =>
    createSocket({ type, lookup: (_host, _options, done) => done(Object.assign(new Error('none'), { code: 'EMFILE' }), '', 6) })
  const { NameResolver: WithoutSockets } = await t.mockImport<typeof import('../../src/base/resolve.js')>(
    '../../src/base/resolve.js',
    { 'node:dgram': { createSocket: noSocket } },
  )
  await dns.dnsZone({ 'a.example': { A: ['192.0.2.1'], AAAA: ['2001:db8::7'] } })
  const names = new WithoutSockets({ servers: [server], hostsFile: join(folder, 'none') })
  t.same((await names.ask('a.example', never)).addresses, ['192.0.2.1', '2001:db8::7'])
})

t.test('a question that nobody answers can be cancelled', async (t) => {
  const names = await resolver('silent')
  const given = new AbortController()
  const before = performance.now()
  const asked = codeOf(names.ask('a.example', given.signal))
  setTimeout(() => given.abort(), 10)
  t.equal(await asked, 'ECANCELLED')
  t.ok(performance.now() - before < 500)
  t.equal(await codeOf(names.ask('a.example', given.signal)), 'ECANCELLED')
})

t.test('the hosts file comes first, and is read again when it changes', async (t) => {
  const hostsFile = file(
    'hosts',
    '192.0.2.5 Host.Example alias # a comment\n2001:DB8::5\thost.example\nnonsense host.example\n#192.0.2.9 no\n',
  )
  const names = await resolver({ 'host.example': { A: ['192.0.2.1'] } }, { hostsFile })
  t.same(await names.addresses('HOST.example.', never), ['192.0.2.5', '2001:db8::5'])
  t.same(names.known('alias'), ['192.0.2.5'])
  t.equal(names.known('no'), undefined)
  file('hosts', '192.0.2.66 alias\n')
  t.same(names.known('alias'), ['192.0.2.66'])
  rmSync(hostsFile)
  t.equal(names.known('alias'), undefined)
  t.same(await names.addresses('host.example', never), ['192.0.2.1'])
})

t.test('a name without a dot is looked for in the domains of resolv.conf, one with dots is a full name', async (t) => {
  const resolvConf = file('resolv.conf', 'domain old.example\nsearch first.example second.example.\nnameserver 192.0.2.1\n')
  t.same(searchDomains('domain a.example\n#search b.example\n'), ['a.example'])
  const names = await resolver(
    { 'db.second.example': { A: ['192.0.2.2'] }, 'x.y.second.example': { A: ['192.0.2.3'] } },
    { resolvConf },
  )
  t.same((await names.ask('db', never)).addresses, ['192.0.2.2'])
  t.equal(await codeOf(names.ask('x.y', never)), 'ENOTFOUND')
  t.same(
    await resolver({ com: { A: ['192.0.2.4'] } }, { resolvConf: join(folder, 'none') }).then((one) => one.ask('com', never)),
    {
      addresses: ['192.0.2.4'],
      lifetimeMs: 1000,
    },
  )
})

t.test('one spelling of a name; numbers are addresses, as everywhere', async (t) => {
  for (const [text, name] of [
    ['Example.COM', 'example.com'],
    ['example.com.', 'example.com'],
    ['münchen.example', 'xn--mnchen-3ya.example'],
    ['_a._tcp.example', '_a._tcp.example'],
    ['r3---sn-x.example', 'r3---sn-x.example'],
    ['127.1', '127.0.0.1'],
    ['0x7f.1', '127.0.0.1'],
    ['2130706433', '127.0.0.1'],
    ['0177.0.0.1', '127.0.0.1'],
    ['１２７。１', '127.0.0.1'],
    ['127.0.0.1.', '127.0.0.1'],
    ['::ffff:127.0.0.1', '127.0.0.1'],
    ['256.256.256.256', undefined],
    ['fe80::1%eth0', undefined],
    ['[::1]', undefined],
    ['a b', undefined],
    ['a/b', undefined],
    ['a%31', undefined],
    ['a@b', undefined],
    ['a..b', undefined],
    ['.a', undefined],
    ['a..', undefined],
    ['.', undefined],
    ['', undefined],
    ['\ufffd', undefined],
    [`${'a'.repeat(64)}.example`, undefined],
    [Array(64).fill('abc').join('.'), undefined],
  ] as const) {
    t.equal(canonicalName(text), name, JSON.stringify(text))
  }
  const names = await resolver({})
  t.same(await names.addresses('127.1', never), ['127.0.0.1'])
  t.equal(await codeOf(names.addresses('a b', never)), 'ENOTFOUND')
})
