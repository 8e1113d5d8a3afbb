/** A gateway for tests of the network set-up, on the model or on the real kernel in a namespace, and what can be seen of it. */
import { type GatewayConfig, gatewaySchema } from '../../src/config/schema.js'
import { runCommand } from '../../src/network/kernel/command.js'
import type { Kernel } from '../../src/network/kernel/kernel.js'
import { Network } from '../../src/network/network.js'
import { capture } from '../../src/network/observe.js'
import type { Lease } from '../../src/network/state.js'
import { FakeKernel } from './fake-kernel.js'
import { createNamespace, type Namespace, type Scope } from './namespaces.js'

export interface World {
  kernel: Kernel & { state: string | undefined; leases: Lease[] }
  addDevice(name: string): Promise<void>
  removeDevice(name: string): Promise<void>
  /** `address/prefix` */
  addAddress(device: string, address: string): Promise<void>
  removeAddress(device: string, address: string): Promise<void>
}

export function fakeWorld(): World & { kernel: FakeKernel } {
  const kernel = new FakeKernel()
  return {
    kernel,
    addDevice: async (name) => kernel.addDevice(name),
    removeDevice: async (name) => kernel.removeDevice(name),
    addAddress: async (device, address) => kernel.addAddress(device, address),
    removeAddress: async (device, address) => kernel.removeAddress(device, address),
  }
}

/** `flavour` puts `iptables-legacy` or `iptables-nft` in the place of `iptables`. */
export async function netnsWorld(scope: Scope, flavour?: string): Promise<World & { namespace: Namespace; far: Namespace }> {
  const namespace = await createNamespace(scope, 'cpe')
  const far = await createNamespace(scope, 'far')
  // Otherwise the kernel adds link-local addresses a second later, in the middle of a comparison.
  await namespace.exec('sysctl', '-qw', 'net.ipv6.conf.default.addr_gen_mode=1')
  const nodad = (address: string) => (address.includes(':') ? ['nodad'] : [])
  return {
    namespace,
    far,
    kernel: netnsKernel(namespace, flavour),
    async addDevice(name) {
      await namespace.exec('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', name, 'netns', far.name)
      await far.exec('ip', 'link', 'set', name, 'up')
      await namespace.exec('ip', 'link', 'set', name, 'up')
      // The kernel reports the carrier some milliseconds later.
      for (let tries = 0; tries < 50; tries++) {
        if (!(await namespace.exec('ip', 'link', 'show', name)).includes('NO-CARRIER')) return
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
    async removeDevice(name) {
      await namespace.exec('ip', 'link', 'delete', name)
    },
    async addAddress(device, address) {
      await namespace.exec('ip', 'address', 'add', address, 'dev', device, ...nodad(address))
    },
    async removeAddress(device, address) {
      await namespace.exec('ip', 'address', 'delete', address, 'dev', device)
    },
  }
}

/** The real kernel, seen from inside a namespace. Only the state file and leases are ours: they live in memory. */
function netnsKernel(namespace: Namespace, flavour?: string): World['kernel'] {
  const named = (program: string) =>
    flavour === undefined ? program : program.replace(/^(ip6?tables)-(?!legacy|nft)/, `$1-${flavour}-`)
  const run = (argv: readonly string[], input?: string) => runCommand(namespace.argv(...argv), input)
  return {
    state: undefined,
    leases: [],
    run: ([program = '', ...words], input) => run([named(program), ...words], input),
    async readSysctls(patterns) {
      const { stdout } = await run(['sh', '-c', `cd /proc/sys && grep -Hs '' ${patterns.join(' ')}`])
      const lines = stdout.split('\n').filter((line) => line !== '')
      return new Map(
        lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).replace(/\s+/g, ' ')]),
      )
    },
    fixedSysctls: async () => new Set(),
    keepsState: async () => true,
    async writeSysctl(path, value) {
      const { code, stderr } = await run(['sh', '-c', `echo '${value}' > /proc/sys/${path}`])
      if (code !== 0) throw new Error(stderr)
    },
    async readLeases() {
      return this.leases
    },
    async readState() {
      return this.state
    },
    async writeState(text) {
      this.state = text
    },
    lock: async () => () => {},
    mayAdminister: async () => true,
  }
}

/** Refuses the change after `after` others: once, or, like a process that was killed then, whatever follows too. */
export function failing(kernel: Kernel, after: number, { killed = false } = {}): Kernel {
  let left = after
  const isRefused = () => (killed ? left-- <= 0 : left-- === 0)
  return {
    readSysctls: (patterns) => kernel.readSysctls(patterns),
    fixedSysctls: (paths) => kernel.fixedSysctls(paths),
    keepsState: () => kernel.keepsState(),
    readLeases: () => kernel.readLeases(),
    readState: () => kernel.readState(),
    async writeState(text) {
      if (killed && left < 0) throw new Error('killed')
      await kernel.writeState(text)
    },
    lock: () => kernel.lock(),
    mayAdminister: () => kernel.mayAdminister(),
    async run(argv, input = '') {
      if (argv.includes('-batch')) {
        const lines = input.split('\n').filter((line) => line !== '')
        const at = lines.findIndex((line) => !/ (show|get)\b/.test(line) && isRefused())
        if (at < 0) return kernel.run(argv, input)
        const before = at === 0 ? undefined : await kernel.run(argv, `${lines.slice(0, at).join('\n')}\n`)
        if (before !== undefined && before.code !== 0) return before
        return { code: 1, stdout: '', stderr: `injected failure\nCommand failed -:${at + 1}\n` }
      }
      const isChange = !argv.includes('show') && !argv[0]?.endsWith('-save') && !argv.includes('list')
      return isChange && isRefused() ? { code: 2, stdout: '', stderr: 'injected failure\n' } : kernel.run(argv, input)
    },
    async writeSysctl(path, value) {
      if (isRefused()) throw new Error('injected failure')
      await kernel.writeSysctl(path, value)
    },
  }
}

export interface Snapshot {
  rules4: string[]
  rules6: string[]
  routes4: string[]
  routes6: string[]
  endpoints: string[]
  limits: string
  nat4: string[]
  nat6: string[]
  filter4: string[]
  filter6: string[]
  sysctls: Record<string, string>
}

/** Everything that concerns the network set-up, ours and others', in a comparable order. */
export async function snapshot(kernel: Kernel): Promise<Snapshot> {
  const list = async (...argv: string[]) => {
    const items = JSON.parse((await capture(kernel, argv)) || '[]') as ({ table?: string; flags?: unknown } & Record<
      string,
      unknown
    >)[]
    // Without the local table, which follows the addresses, and linkdown, which is the far end's state.
    const shown = items.filter((item) => item.table !== '255').map(({ flags: _, ...item }) => JSON.stringify(item))
    return shown.sort()
  }
  const tableOf = async (program: string, table: string) =>
    (await capture(kernel, [`${program}-save`, '-t', table]))
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .map((line) => line.replace(/ \[\d+:\d+\]$/, ''))
  const sysctlPatterns = [
    ...['net/mptcp/*', 'net/ipv4/tcp_window_scaling'],
    ...[
      'net/ipv4/tcp_rmem',
      'net/ipv4/tcp_wmem',
      'net/ipv4/tcp_mtu_probing',
      'net/ipv4/ip_forward',
      'net/ipv4/conf/all/accept_redirects',
    ],
    ...['net/ipv4/conf/*/forwarding', 'net/ipv4/conf/*/rp_filter', 'net/ipv6/conf/*/forwarding', 'net/ipv6/conf/*/accept_ra'],
  ]
  const [rules4, rules6, routes4, routes6, endpoints, limits, nat4, nat6, filter4, filter6, sysctls] = await Promise.all([
    list('ip', '-N', '-j', '-4', 'rule', 'show'),
    list('ip', '-N', '-j', '-6', 'rule', 'show'),
    list('ip', '-N', '-j', '-4', 'route', 'show', 'table', 'all'),
    list('ip', '-N', '-j', '-6', 'route', 'show', 'table', 'all'),
    list('ip', '-j', 'mptcp', 'endpoint', 'show'),
    capture(kernel, ['ip', 'mptcp', 'limits', 'show']),
    tableOf('iptables', 'nat'),
    tableOf('ip6tables', 'nat'),
    tableOf('iptables', 'filter'),
    tableOf('ip6tables', 'filter'),
    kernel.readSysctls(sysctlPatterns),
  ])
  return {
    rules4,
    rules6,
    routes4,
    routes6,
    endpoints,
    nat4,
    nat6,
    filter4,
    filter6,
    limits: limits.trim(),
    sysctls: Object.fromEntries([...sysctls].sort()),
  }
}

export function gateway(overrides: Record<string, unknown> = {}): GatewayConfig {
  return gatewaySchema.parse({
    lan: { interfaces: ['br0'] },
    wans: [
      { name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' },
      { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
    ],
    hags: [{ address: '203.0.113.3' }],
    ...overrides,
  })
}

/** br0, dsl and lte, each with its addresses; DSL has IPv6 too. */
export async function furnish(world: World): Promise<void> {
  for (const [device, ...addresses] of [
    ['br0', '192.168.1.1/24'],
    ['dsl', '10.1.0.2/24', '2001:db8:1::2/64'],
    ['lte', '10.2.0.2/24'],
  ] as const) {
    await world.addDevice(device)
    for (const address of addresses) await world.addAddress(device, address)
  }
}

/** Somebody else's things, beside each kind of ours. */
export async function addForeign(kernel: Kernel): Promise<void> {
  for (const command of [
    'ip rule add from 192.0.2.7 lookup 100 pref 699',
    // At our numbers, as those come that are made without one.
    'ip rule add from 192.0.2.9 lookup 100 pref 700',
    'ip rule add from all lookup main suppress_prefixlength 0 pref 32764',
    'ip -6 rule add from all lookup main suppress_prefixlength 0 pref 32764',
    'ip rule add from 192.0.2.8 lookup 100 pref 708',
    'ip -6 rule add from 2001:db8:ff::7 lookup 100 pref 709',
    'ip route add 198.51.100.0/24 via 10.1.0.9 dev dsl table 100',
    'ip route add 198.51.100.0/24 via 10.1.0.9 dev dsl table 5808',
    'ip mptcp endpoint add 192.168.1.1 id 3 signal',
    'ip mptcp endpoint add 198.51.100.250 id 250 signal',
  ]) {
    await capture(kernel, command.split(' '))
  }
  const foreign = [':FOREIGN - [0:0]', '-A FOREIGN -p tcp -j RETURN']
  for (const program of ['iptables-restore', 'ip6tables-restore']) {
    for (const [table, chain] of [
      ['nat', 'PREROUTING'],
      ['filter', 'INPUT'],
    ]) {
      const lines = [`*${table}`, ...foreign, `-A ${chain} -i br0 -j FOREIGN`, 'COMMIT', '']
      await capture(kernel, [program, '--noflush'], lines.join('\n'))
    }
  }
}

/** `ip` prints something else than it does here, object by object. */
export function printing(kernel: FakeKernel, change: (object: string, json: string) => string): Kernel {
  return Object.assign(Object.create(kernel) as FakeKernel, {
    async run(argv: readonly string[], input = '') {
      if (argv[0] !== 'ip' || !argv.includes('-j')) return kernel.run(argv, input)
      const commands = argv.includes('-batch')
        ? input.trim().split('\n')
        : [argv.filter((word) => !/^(ip|-.*)$/.test(word)).join(' ')]
      const options = argv.filter((word) => /^-[46Nj]$/.test(word))
      let stdout = ''
      for (const command of commands) {
        const shown = await kernel.run(['ip', ...options, ...command.split(' ')])
        stdout += change(command, shown.stdout.trim())
      }
      return { code: 0, stdout, stderr: '' }
    },
  })
}

/** The model, furnished and then changed, and the network set-up on it. */
export async function fakeNetwork(change: (kernel: FakeKernel) => unknown = () => {}) {
  const world = fakeWorld()
  await furnish(world)
  await change(world.kernel)
  return { ...world, network: new Network(world.kernel) }
}

/** What the steps do, as the user reads it. */
export const texts = (steps: { text: string }[]) => steps.map(({ text }) => text)
