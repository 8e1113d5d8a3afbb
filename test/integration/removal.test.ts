/** However `run` ends, the machine is as it was found. */
import t from 'tap'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { bondsocks, start } from '../support/process.js'
import { snapshot, stillness } from '../support/snapshot.js'

t.test('kill -9 of run', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  await world.startHag()
  const cpe = world.execute('cpe')
  const before = await stillness(cpe)
  const gateway = await world.startGateway()
  t.not(await snapshot(cpe), before, 'run sets something up')
  await world.client.call('hold', { host: world.lab.addresses.server, port: ports.echo }, 5)
  await gateway.end('SIGKILL')
  t.equal(await snapshot(cpe), before, 'and its guardian takes that away')

  const again = await world.startGateway()
  t.match(await world.client.call('talk', { host: world.lab.addresses.server, port: ports.greeter }, '', 1), { ending: 'open' })
  t.same(await again.end('SIGTERM'), { code: 0, signal: null })
  t.equal(await snapshot(cpe), before, 'after a run in peace too')
  t.match(await cpe(...bondsocks('remove')), /nothing to do/)
})

t.test('SIGTERM lets transfers end', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  await world.startHag()
  const before = await stillness(world.execute('cpe'))
  const gateway = await world.startGateway({ drain_seconds: 30 })
  const host = world.lab.addresses.server
  // About 8 seconds over both WANs: it must last until a new connection was looked at.
  const download = world.client.call('download', { host, port: ports.source, bytes: 40_000_000 })
  await sleep(1500)
  gateway.kill('SIGTERM')
  await gateway.waitFor(/stopping/)
  const fresh = await world.client.call('talk', { host, port: ports.greeter }, '', 1)
  t.match(fresh, { received: '220 at your service\r\n' }, 'a new connection goes around the gateway')
  t.ok(gateway.running, 'while the old one goes on')
  t.match(await download, { intact: true, error: undefined })
  t.same(await gateway.exited, { code: 0, signal: null })
  t.equal(await snapshot(world.execute('cpe')), before)
})

t.test('drain_seconds is the limit', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  await world.startHag()
  const gateway = await world.startGateway({ drain_seconds: 1 })
  await world.client.call('hold', { host: world.lab.addresses.server, port: ports.echo }, 3)
  const started = Date.now()
  t.same(await gateway.end('SIGTERM'), { code: 0, signal: null })
  const seconds = (Date.now() - started) / 1000
  t.ok(seconds >= 1 && seconds < 6, `ended after ${seconds} s`)
  const alive = await settle(
    () => world.client.call('alive'),
    (count) => count === 0,
  )
  t.equal(alive, 0, 'what did not end was aborted')
})

t.test('another user cannot hold the network up', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const cpe = world.execute('cpe')
  // What such a user could take: the name that was the lock once, and the file that is.
  const script = `
    const net = require('node:net'), fs = require('node:fs')
    process.setgid(65534), process.setuid(65534)
    net.createServer().listen('\\0bondsocks-network', () => console.log('listens'))
    setInterval(() => {
      try {
        for (const name of fs.readdirSync('/run/bondsocks')) if (name.endsWith('.lock')) fs.openSync('/run/bondsocks/' + name), console.log('opened')
      } catch {}
    }, 1)`
  const stranger = start(t, world.lab.argv('cpe', [process.execPath, '-e', script]))
  await stranger.waitFor(/listens/)
  const startedAt = Date.now()
  t.match(await cpe(...bondsocks('remove')), /nothing to do/)
  await world.startHag()
  await (await world.startGateway()).end()
  t.ok(Date.now() - startedAt < 10_000)
  t.notMatch(stranger.output, /opened/)
})
