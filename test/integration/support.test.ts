/** The tools of the other integration tests, without any proxy between: what they report must be true before it can judge anything. */
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { settle } from '../support/hybrid.js'
import { connect, createNamespace, needsRoot } from '../support/namespaces.js'
import { countDescriptors, privateMemory } from '../support/proc.js'

t.test('clients and servers in two namespaces', { skip: needsRoot }, async (t) => {
  const near = await createNamespace(t, 'near')
  const far = await createNamespace(t, 'far')
  await connect(
    { namespace: near, device: 'a', addresses: ['198.51.100.1/24', 'fd00:1::1/64'] },
    { namespace: far, device: 'b', addresses: ['198.51.100.2/24', 'fd00:1::2/64'] },
  )
  const [client, server] = await Promise.all([startAgent(t, near), startAgent(t, far)])
  const host = '198.51.100.2'
  const ports = { echo: 7, source: 9000, sink: 9001, greeter: 9002, aborter: 9003, witness: 9004, http: 8080 } as const
  for (const [name, port] of Object.entries(ports)) await server.call(name as keyof typeof ports, port)

  const download = await client.call('download', { host, port: ports.source, bytes: 30_000_000, seed: 3 })
  t.match(download, { intact: true, bytes: 30_000_000 })
  const tooShort = await client.call('talk', { host: 'fd00:1::2', port: ports.source }, 'GET 10 0\n')
  t.match(tooShort, { ending: 'end' }, 'IPv6 too')
  t.match(await client.call('halfClose', { host, port: ports.sink, bytes: 3_000_000, seed: 5 }), {
    intact: true,
    bytes: 3_000_000,
  })
  t.same(await client.call('many', 'halfClose', 20, { host, port: ports.sink, bytes: 100_000 }), [])
  t.match(await client.call('talk', { host, port: ports.greeter }, '', 1), {
    received: '220 at your service\r\n',
    ending: 'open',
  })
  t.match(await client.call('talk', { host, port: ports.aborter }, 'x'), { ending: 'ECONNRESET' })
  t.match(await client.call('talk', { host, port: 1 }), { ending: 'ECONNREFUSED' })

  const before = countDescriptors(client.pid)
  t.equal(await client.call('hold', { host, port: ports.witness }, 10), 10)
  t.equal(countDescriptors(client.pid), before + 10)
  t.equal(await client.call('ping'), 10)
  await client.call('release', 'rst')
  t.equal(
    await settle(
      () => countDescriptors(client.pid),
      (count) => count === before,
    ),
    before,
  )
  const endings = await settle(
    () => server.call('endings'),
    ({ length }) => length >= 10,
  )
  t.same(endings, Array(10).fill('ECONNRESET'))
  t.ok(privateMemory(client.pid) > 1e6)

  // A wrong stream must be called so: an echo is no answer of a sink.
  t.match(await client.call('many', 'halfClose', 2, { host, port: ports.echo, bytes: 5 }), [{ intact: false }, { intact: false }])
  t.match(await near.exec('curl', '-s', `http://${host}:8080/1/5`, '-w', '%{size_download}'), /5$/)
})

t.test('a name server whose answers change', { skip: needsRoot }, async (t) => {
  const namespace = await createNamespace(t)
  const server = await startAgent(t, namespace)
  await server.call('dns', 53, '127.0.0.53')
  const ask = async (method: 'resolve4' | 'resolve6' | 'resolveSrv', name: string) => {
    const script = `const { Resolver } = require('node:dns').promises
      const resolver = new Resolver({ timeout: 2000, tries: 1 })
      resolver.setServers(['127.0.0.53'])
      resolver.${method}('${name}').then((answer) => console.log(JSON.stringify(answer)), ({ code }) => console.log(JSON.stringify(code)))`
    return JSON.parse(await namespace.exec(process.execPath, '-e', script))
  }
  const hag = { A: ['203.0.113.3', '203.0.113.4'], AAAA: ['2001:db8:a::3', '::1', 'fd00:1:2:3:4:5:6:7'] }
  const fleet = { priority: 1, weight: 2, port: 1080, target: 'hag.example' }
  await server.call('dnsZone', { 'hag.example': hag, '_socks._tcp.example': { SRV: [fleet] } })
  t.same(await ask('resolve4', 'hag.example'), hag.A)
  t.same(await ask('resolve6', 'hag.example'), hag.AAAA)
  t.match(await ask('resolveSrv', '_socks._tcp.example'), [{ priority: 1, weight: 2, port: 1080, name: 'hag.example' }])
  t.same(await ask('resolve6', 'nowhere.example'), 'ENOTFOUND')
  await server.call('dnsZone', { 'hag.example': { A: ['192.0.2.9'] } })
  t.same(await ask('resolve4', 'hag.example'), ['192.0.2.9'], 'another answer')
  t.same(await ask('resolve6', 'hag.example'), 'ENODATA')
  for (const [zone, code] of [
    ['fail', 'ESERVFAIL'],
    ['silent', 'ETIMEOUT'],
    ['garbage', 'EBADRESP'],
  ] as const) {
    await server.call('dnsZone', zone)
    t.same(await ask('resolve4', 'hag.example'), code, zone)
  }
  t.ok((await server.call('dnsAsked')) >= 8)
})
