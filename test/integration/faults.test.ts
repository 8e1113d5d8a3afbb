/** Each fault on the machine or in a config: one clear line, the right exit code, and the network as before. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { connect, createNamespace, type Namespace, needsRoot, type Scope } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'
import { bondsocks, start } from '../support/process.js'
import { snapshot } from '../support/snapshot.js'

interface Machine {
  cpe: Namespace
  isp: Namespace
  /** Writes a gateway config, with these keys over a sound one. */
  config(keys?: object): string
  file(name: string, text: string): string
}

type Test = Scope & { testdir(): string }

/** A CPE with a LAN and two WANs to one router, which is the HAG's host too. */
async function machine(t: Test): Promise<Machine> {
  const [cpe, isp] = [await createNamespace(t, 'cpe'), await createNamespace(t, 'isp')]
  // No link-local addresses: they come and get their routes a second later, in the middle of what is compared.
  await cpe.exec('sysctl', '-qw', 'net.ipv6.conf.default.addr_gen_mode=1')
  const link = (device: string, near: string[], far: string[]) =>
    connect({ namespace: cpe, device, addresses: near }, { namespace: isp, device, addresses: far })
  await link('br0', ['192.168.1.1/24'], [])
  await link('dsl', ['10.1.0.2/24'], ['10.1.0.1/24', '203.0.113.3/32'])
  await link('lte', ['10.2.0.2/24'], ['10.2.0.1/24'])
  await isp.exec('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=2')
  const folder = t.testdir()
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text, { mode: 0o600 })
    return join(folder, name)
  }
  const sound = {
    lan: { interfaces: ['br0'] },
    wans: [
      { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' },
      { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
    ],
    hags: [{ address: '203.0.113.3' }],
    connect_timeout_seconds: 1,
    drain_seconds: 0,
  }
  return { cpe, isp, file, config: (keys = {}) => file('gateway.yaml', JSON.stringify({ ...sound, ...keys })) }
}

interface Fault {
  name: string
  keys?: object
  /** Put before the program's command line. */
  wrap?(machine: Machine, scope: Test): string[] | Promise<string[]>
  code: 1 | 2
  stderr: RegExp
  commands?: string[]
}

const wan = (keys: object) => ({ wans: [{ name: 'dsl', interface: 'dsl', gateway: '10.1.0.1', ...keys }] })

const faults: Fault[] = [
  {
    name: 'no root',
    wrap: () => ['setpriv', '--bounding-set=-all'],
    code: 1,
    stderr: /^bondsocks: reading and changing the network set-up needs root \(CAP_NET_ADMIN\): run it with sudo\n$/,
  },
  {
    name: 'no iptables',
    async wrap({ cpe }, scope) {
      const folder = join(scope.testdir(), 'bin')
      mkdirSync(folder)
      symlinkSync((await cpe.exec('sh', '-c', 'command -v ip')).trim(), join(folder, 'ip'))
      return ['env', `PATH=${folder}`]
    },
    code: 1,
    stderr: /^bondsocks: iptables is missing: install the package iptables\n$/,
  },
  {
    name: 'no MPTCP in the kernel',
    // The program's own mount namespace hides what tells that the kernel has it.
    wrap: () => ['sh', '-c', 'mount -t tmpfs none /proc/sys/net/mptcp && exec "$@"', 'sh'],
    code: 1,
    stderr:
      /^bondsocks: this kernel has no MPTCP \(no \/proc\/sys\/net\/mptcp\): use Linux 6\.1 or later, built with CONFIG_MPTCP\n$/,
  },
  {
    name: 'unknown key',
    keys: wan({ gatway: '10.1.0.1' }),
    code: 2,
    stderr: /^\S+gateway\.yaml:1:\d+: wans\[0\]: unknown key `gatway`, did you mean `gateway`\?\n$/,
  },
  {
    name: 'wrong type',
    keys: { drain_seconds: 'ten' },
    code: 2,
    stderr: /^\S+gateway\.yaml:1:\d+: drain_seconds: expected a number, found "ten"\n$/,
  },
  {
    name: 'a CIDR that is none',
    keys: { bypass: ['10.0.0.0/33'] },
    code: 2,
    stderr:
      /^\S+gateway\.yaml:1:\d+: bypass\[0\]: "10\.0\.0\.0\/33" is no network: write address\/prefix, for instance 10\.0\.0\.0\/8\n$/,
  },
  {
    name: 'password file missing',
    keys: { hags: [{ address: '203.0.113.3', username: 'me', password_file: 'nowhere' }] },
    code: 2,
    stderr: /^bondsocks: password_file \S+\/nowhere cannot be read: no such file\n$/,
    commands: ['run'],
  },
  {
    name: 'port taken',
    async wrap({ cpe }, scope) {
      const script = "require('net').createServer().listen(12345, '0.0.0.0', () => console.log('listening'))"
      await start(scope, cpe.argv(process.execPath, '-e', script)).waitFor(/listening/)
      return []
    },
    code: 1,
    stderr: /^bondsocks: port 12345 is taken by another program: .*; stop it, or choose another listen\.port\n$/,
    commands: ['run'],
  },
]

for (const { name, keys, wrap, code, stderr, commands = ['plan', 'apply', 'run'] } of faults) {
  t.test(name, { skip: needsRoot }, async (t) => {
    const world = await machine(t)
    const execute = (...argv: string[]) => world.cpe.exec(...argv)
    const before = (await wrap?.(world, t)) ?? []
    const found = await snapshot(execute)
    for (const command of commands) {
      const ended = await outcome(world.cpe.argv(...before, ...bondsocks(command, '-c', world.config(keys))))
      t.match(ended.stderr, stderr, `${command}: one line`)
      t.equal(ended.stdout, '', `${command}: and nothing else`)
      t.equal(ended.code, code, `${command}: exit code`)
      t.equal(await snapshot(execute), found, `${command}: the network is as before`)
    }
  })
}

t.test('two modems that give one address: check says so', { skip: needsRoot }, async (t) => {
  const { cpe, config } = await machine(t)
  const check = () => outcome(cpe.argv(...bondsocks('check', config())))
  t.match(await check(), { code: 0, stdout: /gateway config, valid\n$/ })
  await cpe.exec('ip', 'address', 'flush', 'dev', 'lte')
  await cpe.exec('ip', 'address', 'add', '10.1.0.2/24', 'dev', 'lte')
  const text =
    /on this machine: WAN lte cannot be used: its address 10\.1\.0\.2 .*: give one of the modems another network in its settings\n$/
  t.match(await check(), { code: 0, stdout: text })
})

t.test('HAG unreachable: it says so and runs', { skip: needsRoot }, async (t) => {
  const { cpe, config } = await machine(t)
  const execute = (...argv: string[]) => cpe.exec(...argv)
  const found = await snapshot(execute)
  const says = { direct: 'connections go direct, without bonding', reject: 'connections are refused (on_hag_down)' }
  for (const [on_hag_down, what] of Object.entries(says)) {
    const gateway = start(t, cpe.argv(...bondsocks('run', '-c', config({ on_hag_down }))))
    await gateway.waitFor(/gateway runs/)
    t.ok(gateway.output.includes(`no HAG can be reached: ${what}: HAG 203.0.113.3:1080 over dsl: connection refused`))
    t.same(await gateway.end(), { code: 0, signal: null })
    t.equal(await snapshot(execute), found)
  }
})

/** Read-only for the program alone, as a container may have it. */
const readOnly = (folder: string) => [
  ...['sh', '-c', `mount --bind ${folder} ${folder} && mount -o remount,bind,ro ${folder} && exec "$@"`, 'sh'],
]

/** A /run of its own, without room for a file's content, or for a file. */
const full = (options: string) => [
  ...['sh', '-c', `mount -t tmpfs -o ${options} tmpfs /run && { cat /dev/zero > /run/fill 2>/dev/null; exec "$@"; }`, 'sh'],
]

t.test('read-only /proc/sys, read-only or full /run: it says what that means and runs', { skip: needsRoot }, async (t) => {
  const { cpe, config } = await machine(t)
  const execute = (...argv: string[]) => cpe.exec(...argv)
  const found = await snapshot(execute)
  const notKept = /"warn".*\/run cannot be written \(read-only, or full\): former sysctls are put back only by an orderly end/
  const says: [place: string[], what: RegExp][] = [
    [readOnly('/proc/sys'), /"warn".*\/proc\/sys cannot be written here: .*sysctl -w net\.ipv4\.ip_forward=1/],
    [readOnly('/run'), notKept],
    [full('size=4k'), notKept],
    [full('nr_inodes=1'), notKept],
  ]
  for (const [place, what] of says) {
    const gateway = start(t, cpe.argv(...place, ...bondsocks('run', '-c', config())))
    await gateway.waitFor(/gateway runs/)
    t.match(gateway.output, what)
    t.notMatch(gateway.output, /"error"|unexpected/)
    t.match(await cpe.exec('iptables-save', '-t', 'nat'), /-A PREROUTING -i br0 -p tcp -j BONDSOCKS/)
    t.same(await gateway.end(), { code: 0, signal: null })
    t.equal(await snapshot(execute), found, `${place}: the network is as before`)
    const removed = await outcome(cpe.argv(...place, ...bondsocks('remove')))
    t.match(removed, { code: 0, stdout: /nothing to do/ })
  }
  await cpe.exec('sysctl', '-qw', 'net.mptcp.enabled=0')
  const off = await outcome(cpe.argv(...readOnly('/proc/sys'), ...bondsocks('run', '-c', config())))
  t.match(off, { code: 1, stderr: /^bondsocks: MPTCP is switched off, .*: sysctl -w net\.mptcp\.enabled=1\n$/ })
})

t.test("a HAG that does not list the gateway's address: it says so and runs", { skip: needsRoot }, async (t) => {
  const { cpe, isp, config, file } = await machine(t)
  const hag = { listen: { address: '203.0.113.3' }, clients: ['192.0.2.0/24'] }
  const server = start(t, isp.argv(...bondsocks('hag', '-c', file('hag.yaml', JSON.stringify(hag)))))
  await server.waitFor(/HAG listens/)
  // What it lacks may come while it runs: the HAG's list may grow, a WAN's address may change.
  const gateway = start(t, cpe.argv(...bondsocks('run', '-c', config())))
  await gateway.waitFor(/gateway runs/)
  t.match(
    gateway.output,
    /"warn".*go direct, without bonding: HAG 203\.0\.113\.3:1080 over dsl.*: our address is not in its `clients`/,
  )
  t.match(server.output, /refused 10\.\S+: not in `clients`/)
  t.same(await gateway.end(), { code: 0, signal: null })
})

t.test('the right password, then a wrong one, then none', { skip: needsRoot }, async (t) => {
  const { cpe, isp, config, file } = await machine(t)
  const execute = (...argv: string[]) => cpe.exec(...argv)
  const users = file('users', 'me:open-sesame\n')
  const hag = { listen: { address: '203.0.113.3' }, clients: ['10.0.0.0/8'], users_file: users }
  const server = start(t, isp.argv(...bondsocks('hag', '-c', file('hag.yaml', JSON.stringify(hag)))))
  await server.waitFor(/HAG listens/)
  const found = await snapshot(execute)
  const hags = (password: string) => [{ address: '203.0.113.3', username: 'me', password_file: file('secret', `${password}\n`) }]

  const gateway = start(t, cpe.argv(...bondsocks('run', '-c', config({ hags: hags('open-sesame') }))))
  await gateway.waitFor(/gateway runs/)
  t.match(gateway.output, /HAG 203\.0\.113\.3:1080 is up/)
  t.same(await gateway.end(), { code: 0, signal: null })

  const wrong = await outcome(cpe.argv(...bondsocks('run', '-c', config({ hags: hags('close-sesame') }))))
  const line = (text: string) =>
    `bondsocks: no HAG takes our credentials: HAG 203.0.113.3:1080 over dsl: it ${text}; HAG 203.0.113.3:1080 over lte: it ${text}\n`
  t.equal(wrong.stderr, line('refuses the user name or password'))
  t.equal(wrong.code, 2)
  const none = await outcome(cpe.argv(...bondsocks('run', '-c', config())))
  t.equal(none.stderr.replace(/, from [\d.]+/g, ''), line('asks for a user name and password: set username and password_file'))
  t.equal(none.code, 2)
  t.equal(await snapshot(execute), found)
  t.notMatch(gateway.output + server.output + wrong.stdout + none.stdout, /sesame/, 'no password in any log')
})

t.test('MPTCP switched off by sysctl is switched on for the run, and off again', { skip: needsRoot }, async (t) => {
  const { cpe, config } = await machine(t)
  const execute = (...argv: string[]) => cpe.exec(...argv)
  await cpe.exec('sysctl', '-qw', 'net.mptcp.enabled=0')
  const found = await snapshot(execute)
  const gateway = start(t, cpe.argv(...bondsocks('run', '-c', config())))
  await gateway.waitFor(/gateway runs/)
  t.match(await cpe.exec('sysctl', 'net.mptcp.enabled'), /= 1/)
  t.same(await gateway.end(), { code: 0, signal: null })
  t.equal(await snapshot(execute), found)
})

t.test('plan, apply, apply again, remove', { skip: needsRoot }, async (t) => {
  const { cpe, config } = await machine(t)
  const execute = (...argv: string[]) => cpe.exec(...argv)
  const found = await snapshot(execute)
  const run = (...args: string[]) => cpe.exec(...bondsocks(...args))
  const file = config()
  const planned = await run('plan', '-c', file)
  const { steps, wans } = JSON.parse(await run('plan', '-c', file, '--json'))
  t.match(wans, [
    { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' },
    { name: 'lte', interface: 'lte', address4: '10.2.0.2' },
  ])
  t.ok(steps.length > 5)
  t.ok(planned.startsWith(steps.join('\n')))
  t.equal(await snapshot(execute), found, 'plan changes nothing')
  t.equal(await run('apply', '-c', file), planned, 'apply does what plan said')
  t.not(await snapshot(execute), found)
  t.match(await run('apply', '-c', file), /^nothing to do: all is as the config says\n/)
  t.match(await run('plan', '-c', file), /^nothing to do: all is as the config says\n/)
  await run('remove')
  t.equal(await snapshot(execute), found)
  t.match(await run('remove'), /^nothing to do: nothing of ours is here\n/)
})
