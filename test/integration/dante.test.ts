/** The gateway with a HAG that is not ours: Debian's Dante under mptcpize, with and without a password. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { startDante } from '../support/dante.js'
import { ports, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const skip = needsRoot || (!existsSync('/usr/sbin/danted') && 'needs danted (package dante-server)')

const user = 'lanuser'

t.test('Dante as the HAG', { skip }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const host = world.lab.addresses.server
  t.test('without a password', async (t) => {
    const danted = await startDante(t, world, 'hag', 'none')
    const gateway = await world.startGateway()
    t.same(await world.client.call('many', 'download', 20, { host, port: ports.source, bytes: 1_000_000 }), [])
    t.same(await world.client.call('many', 'halfClose', 20, { host, port: ports.sink, bytes: 1_000_000 }), [])
    t.match(await world.client.call('talk', { host, port: ports.greeter }, '', 1), { received: '220 at your service\r\n' })
    await gateway.end()
    await danted.end()
  })

  t.test('with a password', async (t) => {
    // Dante knows the system's users only: give its namespace some of its own.
    const hash = execFileSync('openssl', ['passwd', '-6', '-stdin'], { input: 'open sesame', encoding: 'utf8' }).trim()
    world.etc('hag', 'passwd', `${readFileSync('/etc/passwd', 'utf8')}${user}:x:64001:64001::/:/usr/sbin/nologin\n`)
    world.etc('hag', 'shadow', `${readFileSync('/etc/shadow', 'utf8')}${user}:${hash}:19000:0:99999:7:::\n`)
    const danted = await startDante(t, world, 'hag', 'username')
    const { address, port } = { address: world.lab.addresses.hag, port: 1080 }
    const credentials = (password: string) => ({
      hags: [{ address, port, username: user, password_file: world.file('password', `${password}\n`) }],
    })

    const gateway = await world.startGateway(credentials('open sesame'))
    t.same(await world.client.call('many', 'download', 20, { host, port: ports.source, bytes: 1_000_000 }), [])
    await gateway.end()

    const refused = world.start('cpe', 'run', '-c', world.config('gateway', credentials('wrong')))
    t.match(await refused.exited, { code: 2 })
    t.match(refused.output, /user name or password/)
    await danted.end()
  })
})
