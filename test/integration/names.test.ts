/** Names that a HAG's clients ask for: those that nobody answers beside those of others, and what leads to the HAG itself. */
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('names', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const { hag: address, server, server6 } = world.lab.addresses
  const both = { A: [server], AAAA: [server6], ttl: 0 }
  const names = await world.dns(
    {
      'good.example': both,
      'www.example': { CNAME: 'good.example' },
      'half.example': { ...both, silent: ['AAAA'] },
      'rebind.example': { A: ['127.0.0.1', '10.99.0.1'], AAAA: ['::1'] },
      ...Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`${index}.silent.example`, { silent: ['A', 'AAAA'] }])),
    },
    'hag',
  )
  world.etc('hag', 'hosts', '127.0.0.1 localhost\n')
  // What lies in /etc/netns/NAME is bound file by file: written in place it is seen.
  const append = (name: string, line: string) => world.execute('hag')('sh', '-c', `echo '${line}' >> /etc/${name}`)
  const hag = await world.startHag({ log_level: 'debug', clients: ['10.0.0.0/8', server] })
  const greedy = await startAgent(t, { argv: (...argv) => world.lab.argv('cpe', argv) })
  const proxy = { host: address, port: 1080 }
  const get = async (host: string) => {
    const before = performance.now()
    const result = await world.server.call('socks', proxy, { host, port: ports.source }, 1000)
    return { ...result, ms: performance.now() - before }
  }
  /** Sockets that the HAG asks name servers by. */
  const questions = async () =>
    (await world.execute('hag')('ss', '-Huanp')).split('\n').filter((line) => line.includes(`pid=${hag.pid},`)).length

  await t.test('one client asks for what nobody answers: the others and the log go on', async (t) => {
    // RFC 1928: the greeting, and CONNECT to a name.
    const ask = (name: string) => `\x05\x01\0\x05\x01\0\x03${String.fromCharCode(name.length)}${name}\0\x50`
    const silent = Array.from({ length: 40 }, (_, index) =>
      greedy.call('vanish', proxy, 2000, 'rst', ask(`${index}.silent.example`)),
    )
    await settle(
      () => names.call('dnsAsked'),
      (count) => count >= 4,
    )
    for (const host of ['good.example', 'www.example']) {
      const { ms, ...result } = await get(host)
      t.same(result, { intact: true }, host)
      t.ok(ms < 1000, `${host} within ${Math.round(ms)} ms`)
    }
    await hag.waitFor(new RegExp(`"destination":"(${server.replaceAll('.', '\\.')}|\\[${server6}\\]):9000"`), 1000)
    t.ok((await questions()) >= 16, 'they are still asked for')
    t.match(hag.output, /asks for more names than are answered/)
    await Promise.all(silent)
    t.equal(await settle(questions, (now) => now === 0), 0, 'nothing is asked for a client that has gone')
  })

  await t.test('what leads to the HAG itself, by whatever spelling, is refused', async (t) => {
    for (const host of ['rebind.example', '127.1', '0x7f.1', '2130706433', '0177.0.0.1', 'localhost', '0']) {
      t.match(await get(host), { refusal: /NotAllowed/ }, host)
    }
    for (const host of ['nowhere.example', 'a b', '1.2.3.4.5']) {
      t.match(await get(host), { refusal: /HostUnreachable/ }, host)
    }
  })

  await t.test('families: no answer about IPv6, and no IPv6, cost no time', async (t) => {
    const half = await get('half.example')
    t.match(half, { intact: true })
    t.ok(half.ms < 700, `without an answer about IPv6: ${Math.round(half.ms)} ms`)
    await world.execute('hag')('sh', '-c', 'ip -6 route flush default; ip -6 route flush root 2001:db8::/32; true')
    const without = await get('good.example')
    t.match(without, { intact: true })
    t.ok(without.ms < 240, `without IPv6: ${Math.round(without.ms)} ms`)
  })

  await t.test('the hosts file and resolv.conf may change while it runs', async (t) => {
    await append('hosts', `${server} added.example`)
    t.match(await get('added.example'), { intact: true })
    await names.call('dnsZone', 'silent')
    const second = await startAgent(t, { argv: (...argv) => world.lab.argv('hag', argv) })
    await second.call('dns', 53, '127.0.0.54')
    await second.call('dnsZone', { 'moved.example': { A: [server] } })
    await append('resolv.conf', 'nameserver 127.0.0.54')
    t.match(await get('moved.example'), { intact: true })
  })
  t.same(await hag.end(), { code: 0, signal: null })
})
