/** A lab with the real programs in it: LAN client -> `bondsocks run` on the CPE -> `bondsocks hag` -> server. */
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { execute } from '../../src/lab/commands.js'
import { type Lab, type LabOptions, labUp } from '../../src/lab/lab.js'
import { type Agent, startAgent } from './agent.js'
import type { Zone } from './dns.js'
import { randomName, type Scope } from './namespaces.js'
import { bondsocks, type Program, start } from './process.js'

export { remeasure, settle, sleep } from './wait.js'

/** Runs a command in one host of the lab and returns what it printed. */
export type Execute = (...argv: string[]) => Promise<string>

export const ports = {
  echo: 7,
  source: 9000,
  sink: 9001,
  lateSink: 9006,
  greeter: 9002,
  aborter: 9003,
  witness: 9004,
  torrent: 9005,
  http: 8080,
} as const

export interface WorldOptions extends Partial<Pick<LabOptions, 'topology' | 'shaped' | 'links'>> {
  /** Keys that replace those of the lab's own configs. */
  gateway?: object
  hag?: object
}

export class World {
  private readonly entries = new Map<string, (argv: readonly string[]) => string[]>()

  private constructor(
    readonly lab: Lab,
    private readonly scope: Scope,
    private readonly options: WorldOptions,
    private readonly folder: string,
    /** Clients in the LAN, servers in the Internet. */
    readonly client: Agent,
    readonly server: Agent,
  ) {}

  /** The lab with its servers, and only routers between. */
  static async create(scope: Scope, options: WorldOptions = {}): Promise<World> {
    const { gateway, hag, ...wishes } = options
    const lab = await labUp({ topology: 'hybrid', name: randomName(), ...wishes })
    scope.teardown(() => lab.down())
    const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
    scope.teardown(() => rmSync(folder, { recursive: true }))
    const agent = (host: string) => startAgent(scope, { argv: (...argv) => lab.argv(host, argv) })
    const [client, server] = await Promise.all([agent('lan'), agent('server')])
    for (const [name, port] of Object.entries(ports)) await server.call(name as keyof typeof ports, port)
    return new World(lab, scope, options, folder, client, server)
  }

  /** The same with both programs running. */
  static async run(scope: Scope, options: WorldOptions = {}): Promise<World & { hag: Program; gateway: Program }> {
    const world = await World.create(scope, options)
    const hag = await world.startHag()
    const gateway = await world.startGateway()
    return Object.assign(world, { hag, gateway })
  }

  /** Writes a file that a config names. */
  file(name: string, text: string): string {
    const path = join(this.folder, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }

  /** JSON is YAML. */
  config(name: 'gateway' | 'hag' | 'hag2', more: object = {}): string {
    const given = this.options[name === 'hag2' ? 'hag' : name]
    return this.file(
      `${name}.yaml`,
      JSON.stringify({ ...parse(readFileSync(this.lab.configs[name], 'utf8')), ...given, ...more }),
    )
  }

  /** A file of /etc for the programs of one host: `ip netns exec` mounts files of /etc/netns/NAME over /etc. */
  etc(host: string, name: string, text: string): void {
    const folder = `/etc/netns/${this.lab.hosts[host]}`
    mkdirSync(folder, { recursive: true })
    this.scope.teardown(() => {
      rmSync(folder, { recursive: true, force: true })
      try {
        rmdirSync('/etc/netns')
      } catch {
        // Others use it.
      }
    })
    writeFileSync(join(folder, name), text, { mode: 0o600 })
  }

  /**
   * A name server for programs that the host starts from now on; `call('dnsZone', ...)` changes its answers. They are valid for a second.
   */
  async dns(zone: Zone, host = 'cpe'): Promise<Agent> {
    const agent = await startAgent(this.scope, { argv: (...argv) => this.lab.argv(host, argv) })
    await agent.call('dns', 53, '127.0.0.53')
    await agent.call('dnsZone', zone)
    this.etc(host, 'resolv.conf', 'nameserver 127.0.0.53\noptions timeout:1 attempts:1\n')
    return agent
  }

  /**
   * Programs that the host starts from now on may write where the system's do: /run and the leases are empty, and /etc is a copy; `script`
   * changes it. Another call begins anew.
   */
  async ownFiles(host: string, script = ''): Promise<void> {
    const folders = ['dhcp', 'dhcpcd'].map((name) => `/var/lib/${name}`)
    const mounts = [
      'mount -t tmpfs own /run && cp -a /etc /run/etc && mount --bind /run/etc /etc',
      `for folder in ${folders.join(' ')}; do [ ! -d $folder ] || mount -t tmpfs own $folder; done`,
    ]
    const keep = `set -e\n${mounts.join('\n')}\n${script}\necho made\nexec sleep infinity`
    const keeper = start(this.scope, this.lab.argv(host, ['unshare', '--mount', '--uts', 'sh', '-c', keep]))
    await keeper.waitFor(/^made$/m)
    const enter = ['nsenter', '--target', String(keeper.pid), '--net', '--mount', '--uts', '--wd', '--']
    this.entries.set(host, (argv) => [...enter, ...argv])
  }

  /** The command line that runs `argv` in a host, with its own files if it has some. */
  argv(host: string, argv: readonly string[]): string[] {
    return this.entries.get(host)?.(argv) ?? this.lab.argv(host, argv)
  }

  execute(host: string): Execute {
    return async (...argv) => {
      const { stdout, stderr, code } = await execute(this.argv(host, argv))
      if (code !== 0) throw new Error(`${argv.join(' ')}: exit code ${code}: ${stderr}`)
      return stdout
    }
  }

  /** Bytes of a download that were acknowledged to the server and have not reached the client yet: in the proxies and on the WANs. */
  async parkedBytes(port: number): Promise<number> {
    const read = async (host: string, filter: string, key: string) => {
      const text = await this.execute(host)('ss', '-tinH', 'state', 'established', filter)
      return Math.max(0, ...[...text.matchAll(new RegExp(`\\b${key}:(\\d+)`, 'g'))].map(([, bytes]) => Number(bytes)))
    }
    const [acknowledged, received] = await Promise.all([
      read('server', `sport = :${port}`, 'bytes_acked'),
      read('lan', `dport = :${port}`, 'bytes_received'),
    ])
    return Math.max(0, acknowledged - received)
  }

  /** Downloads over a new connection of the LAN: its outcome, and the WANs that carried more than a seventh of it. */
  async downloadByWans(bytes: number): Promise<{ wans: string[]; outcome: Awaited<ReturnType<Agent['call']>> }> {
    const before = await this.lab.wanBytes()
    const outcome = await this.client.call('download', { host: this.lab.addresses.server, port: ports.source, bytes })
    const after = await this.lab.wanBytes()
    const wans = ['dsl', 'lte'].filter((wan) => (after[wan]?.down ?? 0) - (before[wan]?.down ?? 0) > bytes / 7)
    return { wans, outcome }
  }

  /** The devices of the CPE's MPTCP endpoints, sorted. */
  async endpoints(): Promise<string[]> {
    const text = await this.execute('cpe')('ip', 'mptcp', 'endpoint', 'show')
    return text
      .split('\n')
      .flatMap((line) => line.match(/ dev (\S+)/)?.[1] ?? [])
      .sort()
  }

  /** Another device in the LAN: connections that its client binds to this address have a MAC address of their own. */
  async device(address: string): Promise<void> {
    const lan = this.execute('lan')
    const name = `lan${address.split('.').at(-1)}`
    const table = String(1000 + Number(address.split('.').at(-1)))
    await lan('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2')
    await lan('ip', 'link', 'add', 'link', 'eth0', 'name', name, 'type', 'macvlan', 'mode', 'bridge')
    await lan('ip', 'address', 'add', `${address}/24`, 'dev', name, 'noprefixroute')
    await lan('ip', 'link', 'set', name, 'up')
    await lan('ip', 'route', 'add', 'default', 'via', '192.168.1.1', 'dev', name, 'onlink', 'table', table)
    await lan('ip', 'rule', 'add', 'from', address, 'lookup', table)
  }

  start(host: string, ...args: string[]): Program {
    return this.startOther(host, ...bondsocks(...args))
  }

  /** Another program than ours. */
  startOther(host: string, ...argv: string[]): Program {
    return start(this.scope, this.argv(host, argv))
  }

  async startHag(more: object = {}, host: 'hag' | 'hag2' = 'hag'): Promise<Program> {
    const hag = this.start(host, 'hag', '-c', this.config(host, more))
    await hag.waitFor(/HAG listens/)
    return hag
  }

  async startGateway(more: object = {}): Promise<Program> {
    const gateway = this.start('cpe', 'run', '-c', this.config('gateway', more))
    await gateway.waitFor(/gateway runs/)
    return gateway
  }
}
