/** The HAG on its own, with clients that are not ours: curl and the npm package `socks`. */
import { rmSync, symlinkSync } from 'node:fs'
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { ports, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { streamSha256 } from '../support/stream.js'

t.test('the HAG', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const { server, server6, hag: address } = world.lab.addresses
  const hosts = `127.0.0.1 localhost\n${server} server.example\n${server6} six.example\n10.99.0.1 rebound.example\n`
  world.etc('hag', 'hosts', hosts)

  const client = await startAgent(t, { argv: (...argv) => world.lab.argv('cpe', argv) })
  const proxy = { host: address, port: 1080 }
  const source = { host: server, port: ports.source }
  const download = (bytes: number) => ({ seed: 4, bytes, url: `:${ports.http}/4/${bytes}` })

  t.test('without users', async (t) => {
    const hag = await world.startHag({ connect_timeout_seconds: 2 })
    const cpe = world.execute('cpe')
    const { seed, bytes, url } = download(5_000_000)
    for (const [name, host] of [
      [server, server],
      ['server.example', 'server.example'],
      [server6, `[${server6}]`],
    ]) {
      const sum = await cpe('sh', '-c', `curl -sS --socks5-hostname ${address}:1080 http://${host}${url} | sha256sum`)
      t.match(sum, streamSha256(seed, bytes), `curl to ${name}`)
    }
    t.same(await client.call('socks', proxy, source, 1_000_000), { intact: true }, 'socks to an IPv4 address')
    t.same(
      await client.call('socks', proxy, { host: server6, port: ports.source }, 1_000_000),
      { intact: true },
      'to an IPv6 address',
    )
    t.same(
      await client.call('socks', proxy, { host: 'six.example', port: ports.source }, 1_000_000),
      { intact: true },
      'to a name',
    )

    const refusals: [string, string, number, RegExp][] = [
      ['a closed port', server, 1, /ConnectionRefused/],
      ['a host that does not answer', '192.0.2.77', 80, /HostUnreachable|NetworkUnreachable/],
      ['a name that does not exist', 'nowhere.example', 80, /HostUnreachable/],
      ['loopback', '127.0.0.1', 1080, /NotAllowed/],
      ['a name for loopback', 'localhost', 1080, /NotAllowed/],
      ['a name for a private address', 'rebound.example', 80, /NotAllowed/],
      ['IPv6 loopback', '::1', 1080, /NotAllowed/],
      ['v4-mapped loopback', '::ffff:127.0.0.1', 1080, /NotAllowed/],
      ['a private address', '10.99.0.1', 80, /NotAllowed/],
      ['cloud metadata', '169.254.169.254', 80, /NotAllowed/],
      ['multicast', '224.0.0.1', 80, /NotAllowed/],
      ['another port of its own', address, 8080, /NotAllowed/],
      // Only so that a gateway can ask whether it takes all in one go: nothing but a greeting is served there.
      ['its own SOCKS port, without SOCKS', address, 1080, /ECONNRESET/],
    ]
    for (const [what, host, port, reason] of refusals) {
      t.match(await client.call('socks', proxy, { host, port }), { refusal: reason }, what)
    }
    t.same(await hag.end(), { code: 0, signal: null })
  })

  t.test('only for its clients', async (t) => {
    const hag = await world.startHag({ clients: ['192.0.2.0/24'] })
    t.match(await client.call('socks', proxy, source), { refusal: /unknown authentication type|ECONNRESET|EPIPE|closed/i })
    await hag.waitFor(/refused \S+: not in `clients`"/)
    await hag.end()
  })

  t.test('with users', async (t) => {
    const users = world.file('users', '# ours\nann:correct horse\nbob:b:c\n')
    const hag = await world.startHag({ users_file: users })
    t.same(await client.call('socks', { ...proxy, userId: 'ann', password: 'correct horse' }, source, 1_000_000), {
      intact: true,
    })
    t.match(await client.call('socks', { ...proxy, userId: 'ann', password: 'wrong horse' }, source), {
      refusal: /[Aa]uthentication/,
    })
    t.match(await client.call('socks', { ...proxy, userId: 'eve', password: 'correct horse' }, source), {
      refusal: /[Aa]uthentication/,
    })
    t.match(await client.call('socks', proxy, source), { refusal: /./ }, 'none at all')
    await hag.waitFor(/"refused \S+: wrong user name or password/)
    await hag.waitFor(/"refused \S+: it offers no way to log in/)
    rmSync(users)
    symlinkSync(users, users)
    // It looks at the file every two seconds.
    await sleep(2100)
    for (let login = 0; login < 2; login++) {
      const answer = await client.call('socks', { ...proxy, userId: 'ann', password: 'correct horse' }, source, 1_000_000)
      t.same(answer, { intact: true }, 'with a symlink loop in its place the former users stay')
    }
    t.match(hag.output, /ELOOP.*the former users stay/)
    t.notMatch(hag.output, /horse/, 'the log holds no password')
    t.same(await hag.end(), { code: 0, signal: null })
  })
})
