/** The network set-up on the real kernel: what packets do, and that everything is found again as it was. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { type Namespace, needsRoot } from '../support/namespaces.js'
import { addForeign, furnish, gateway, netnsWorld } from '../support/network-world.js'
import { cleanEnvironment } from '../support/process.js'

/** Everything: all of /proc/sys/net, all routes, rules, endpoints and chains. */
async function everything(namespace: Namespace): Promise<string> {
  const commands = [
    ...['ip rule', 'ip -6 rule', 'ip route show table all', 'ip -6 route show table all', 'ip mptcp endpoint', 'ip mptcp limits'],
    // conntrack's files appear with its first use in a namespace, and count connections.
    "grep -rHs '' /proc/sys/net | grep -v /netfilter/ | sort",
    // iptables-nft makes the empty built-in chains with its first use, and cannot take the table away.
    ...['iptables-save', 'ip6tables-save'].map((save) => `${save} | grep '^[-:]' | grep -v '^:.* ACCEPT' | sed 's/ \\[.*//'`),
  ]
  return namespace.exec('sh', '-c', commands.join('; echo; '))
}

t.test('packets leave by the WAN of their source address, and nothing is left after remove', { skip: needsRoot }, async (t) => {
  const world = await netnsWorld(t)
  const { namespace } = world
  await furnish(world)
  await addForeign(world.kernel)
  await namespace.exec('ip', 'route', 'add', 'default', 'via', '10.1.0.1', 'dev', 'dsl')
  const route = (...words: string[]) => namespace.exec('ip', 'route', 'get', ...words)
  const before = await everything(namespace)
  t.match(before, /net\/ipv4\/conf\/dsl\/rp_filter/)
  t.notMatch(await route('203.0.113.3', 'from', '10.2.0.2'), /dev lte/, 'without us the second WAN is not used')

  const network = new Network(world.kernel)
  await network.apply(gateway())
  t.match(await route('203.0.113.3', 'from', '10.1.0.2'), /via 10\.1\.0\.1 dev dsl/)
  t.match(await route('203.0.113.3', 'from', '10.2.0.2'), /via 10\.2\.0\.1 dev lte/)
  t.match(await route('203.0.113.3', 'from', '10.2.0.2', 'oif', 'lte'), /via 10\.2\.0\.1 dev lte/, 'as a joining subflow asks')
  t.match(await route('192.168.1.7', 'from', '10.2.0.2'), /dev br0/, 'an answer to the LAN stays inside')
  t.match(await route('203.0.113.3'), /via 10\.1\.0\.1 dev dsl/, 'the main table rules the rest')

  await network.remove()
  t.equal(await everything(namespace), before)
})

const addon = fileURLToPath(new URL('../../build/bondsocks.node', import.meta.url))
const needsAddon = existsSync(addon) ? false : 'the addon is not built: npm run build:native'
const program = fileURLToPath(new URL('../support/network-process.ts', import.meta.url))

function act(argv: string[], environment: NodeJS.ProcessEnv = {}) {
  const [file = '', ...rest] = argv
  const { stdout, stderr, status, signal } = spawnSync(file, rest, {
    encoding: 'utf8',
    env: { ...cleanEnvironment(), ...environment },
    timeout: 30_000,
  })
  return { steps: stdout === '' ? [] : (JSON.parse(stdout) as string[]), stderr, status, signal }
}
const argvOf = (command: string) => [process.execPath, '--import=tsx', program, command]

t.test(
  'a process that is killed after apply: another one finds its state file and removes everything',
  { skip: needsRoot || needsAddon },
  async (t) => {
    const world = await netnsWorld(t)
    const { namespace } = world
    await furnish(world)
    const run = (command: string) => act(namespace.argv(...argvOf(command)))
    // Other tests keep theirs beside it at the same time, so the namespace itself must say which is its own.
    const askCookie = `process.stdout.write(require(${JSON.stringify(addon)}).netnsCookie())`
    const state = `/run/bondsocks/net-${await namespace.exec(process.execPath, '-e', askCookie)}`
    const before = await everything(namespace)

    const planned = run('plan')
    t.match(planned, { status: 0, stderr: '' })
    t.ok(planned.steps.length > 15)
    t.same(run('apply-and-die'), { ...planned, status: null, signal: 'SIGKILL' })
    t.not(await everything(namespace), before)
    t.match(run('apply'), { steps: [], status: 0 })
    t.ok(existsSync(state), 'the state file is there')

    t.match(run('remove'), { status: 0, stderr: '' })
    t.equal(await everything(namespace), before)
    t.notOk(existsSync(state), 'the state file is gone')
    t.match(run('remove'), { steps: [], status: 0 })
  },
)

t.test('without root, ip or iptables: one line and exit code 1', { skip: needsRoot || needsAddon }, async (t) => {
  const world = await netnsWorld(t)
  await furnish(world)
  const before = await everything(world.namespace)
  const inside = (...argv: string[]) => act(world.namespace.argv(...argv))
  const folder = t.testdir({})
  const only = (...programs: string[]) => {
    const links = programs.map((name) => `ln -sf $(command -v ${name}) ${folder}/${name}`)
    return inside('sh', '-c', `${['true', ...links].join('; ')}; PATH=${folder} exec ${argvOf('apply').join(' ')}`)
  }
  t.match(only(), { status: 1, stderr: 'ip is missing: install the package iproute2\n' })
  t.match(only('ip'), { status: 1, stderr: 'iptables is missing: install the package iptables\n' })
  t.match(inside('setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin', ...argvOf('apply')), {
    status: 1,
    stderr: /^reading and changing the network set-up needs root .*\n$/,
  })
  t.equal(await everything(world.namespace), before)
})

t.test('processes that want the same at the same time take turns', { skip: needsRoot || needsAddon }, async (t) => {
  const world = await netnsWorld(t)
  const { namespace } = world
  await furnish(world)
  const before = await everything(namespace)
  /** All at once, from one start, so that they meet. */
  const together = (command: string) => {
    const one = argvOf(command).join(' ')
    const script = `for n in 1 2 3; do { ${one} > /dev/null || echo failed; } & done; wait`
    const { stdout } = spawnSync('ip', namespace.argv('sh', '-c', `{ ${script}; } 2>&1`).slice(1), {
      encoding: 'utf8',
      env: cleanEnvironment(),
    })
    return stdout.split('\n').filter(Boolean)
  }
  t.same(together('apply'), [])
  t.match(act(namespace.argv(...argvOf('apply'))), { steps: [], status: 0 }, 'all of it is there')
  t.same(together('remove'), [])
  t.equal(await everything(namespace), before)
})
