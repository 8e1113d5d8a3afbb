/** A model of the kernel that understands exactly the commands of the network set-up, with the errors that they can meet. */

import { type Family, familyOf, parseCidr } from '../../src/base/address.js'
import type { CommandResult, Kernel } from '../../src/network/kernel/kernel.js'
import type { Lease } from '../../src/network/state.js'
import { FakeIptables } from './fake-iptables.js'
import { FakeRouting } from './fake-routing.js'
import { Refusal, refuse } from './refusal.js'

interface Address {
  family: Family
  address: string
  prefix: number
}

const perInterface: Record<string, string> = {
  'net/ipv4/conf/*/forwarding': '0',
  'net/ipv4/conf/*/rp_filter': '1',
  'net/ipv6/conf/*/forwarding': '0',
  'net/ipv6/conf/*/accept_ra': '1',
}

export class FakeKernel implements Kernel {
  /** Programs that are not installed. */
  readonly missing = new Set<string>()
  privileged = true
  /** Without ports. */
  readonly bridges = new Set<string>()
  state: string | undefined
  leases: Lease[] = []
  private readonly devices = new Map<string, { flags: string[]; addresses: Address[] }>()
  private readonly routing = new FakeRouting(this.devices)
  private readonly iptables = new FakeIptables()
  /** Matches and targets that its iptables lacks, as words of a rule, and iptables-restore's message then. */
  readonly lacking = this.iptables.lacking
  private endpoints: { id: number; address: string; device: string | undefined; flags: string[] }[] = []
  /** Errors of a batch that goes on after them. */
  private complaints = ''
  private limits = { add_addr_accepted: 0, subflows: 2 }
  private readonly sysctls = new Map<string, string>([
    ['net/mptcp/enabled', '1'],
    ['net/mptcp/path_manager', 'kernel'],
    ['net/mptcp/scheduler', 'default'],
    ['net/mptcp/stale_loss_cnt', '4'],
    ['net/ipv4/tcp_window_scaling', '1'],
    ['net/mptcp/blackhole_timeout', '3600'],
    ['net/mptcp/close_timeout', '60'],
    ['net/ipv4/tcp_rmem', '4096 131072 6291456'],
    ['net/ipv4/tcp_wmem', '4096 16384 33554432'],
    ['net/ipv4/tcp_mtu_probing', '0'],
    ['net/ipv4/ip_forward', '0'],
    ['net/ipv4/conf/all/accept_redirects', '1'],
  ])

  constructor() {
    for (const name of ['all', 'default']) this.addSysctls(name)
  }

  // The world around us

  addDevice(name: string, flags: readonly string[] = ['BROADCAST', 'UP', 'LOWER_UP']): void {
    this.devices.set(name, { flags: [...flags], addresses: [] })
    this.addSysctls(name)
  }

  removeDevice(name: string): void {
    this.devices.delete(name)
    this.routing.routes = this.routing.routes.filter(({ words }) => words.get('dev') !== name)
    for (const path of this.sysctls.keys()) if (path.includes(`/conf/${name}/`)) this.sysctls.delete(path)
    for (const endpoint of this.endpoints) if (endpoint.device === name) endpoint.device = 'if99'
  }

  setCarrier(name: string, on: boolean): void {
    const device = this.devices.get(name)
    if (device) device.flags = ['BROADCAST', ...(on ? ['UP', 'LOWER_UP'] : ['NO-CARRIER', 'UP'])]
  }

  addAddress(device: string, text: string): void {
    const [address = '', prefix = ''] = text.split('/')
    const family = familyOf(address) ?? 4
    this.devices.get(device)?.addresses.push({ family, address, prefix: Number(prefix) })
    const network = parseCidr(text)
    const words = new Map([['dev', device], ...(family === 4 ? ([['src', address]] as const) : ([['metric', '256']] as const))])
    const destination = `${network?.address}/${network?.prefix}`
    this.routing.routes.push({ family, table: 'main', words, destination, protocol: '2' })
  }

  removeAddress(device: string, text: string): void {
    const [address = ''] = text.split('/')
    const found = this.devices.get(device)
    if (found) found.addresses = found.addresses.filter((one) => one.address !== address)
    const network = parseCidr(text)
    this.routing.routes = this.routing.routes.filter(
      ({ destination, protocol, words }) =>
        !(protocol === '2' && destination === `${network?.address}/${network?.prefix}` && words.get('dev') === device),
    )
    // If an interface loses its last IPv4 address, it loses all its IPv4 routes (fib_disable_ip).
    const hasIpv4 = found?.addresses.some((one) => one.family === 4) ?? false
    if (familyOf(address) === 4 && !hasIpv4) {
      this.routing.routes = this.routing.routes.filter(({ family, words }) => family === 6 || words.get('dev') !== device)
    }
    // IPv4 removes routes with their source address; IPv6 only their source.
    this.routing.routes = this.routing.routes.filter(({ words, family }) => family === 6 || words.get('src') !== address)
    for (const { words } of this.routing.routes) if (words.get('src') === address) words.delete('src')
  }

  // The seam

  async run(argv: readonly string[], input?: string): Promise<CommandResult> {
    const [program = ''] = argv
    if (this.missing.has(program)) return { code: 127, stdout: '', stderr: `${program} is not installed` }
    try {
      this.complaints = ''
      const stdout = this.execute(argv, input)
      return { code: this.complaints === '' ? 0 : 1, stdout, stderr: this.complaints }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      return { code: 2, stdout: '', stderr: `${error.message}\n` }
    }
  }

  async readSysctls(patterns: readonly string[]): Promise<Map<string, string>> {
    const expressions = patterns.map((pattern) => new RegExp(`^${pattern.replace('*', '[^/]+')}$`))
    return new Map([...this.sysctls].filter(([path]) => expressions.some((one) => one.test(path))))
  }

  /** Sysctls that cannot be written. */
  readonly fixed = new Set<string>()

  async fixedSysctls(paths: readonly string[]): Promise<ReadonlySet<string>> {
    return new Set(paths.filter((path) => this.fixed.has(path)))
  }

  async keepsState(): Promise<boolean> {
    return true
  }

  async writeSysctl(path: string, value: string): Promise<void> {
    if (this.fixed.has(path)) refuse(`EROFS: read-only file system, open '/proc/sys/${path}'`)
    if (!this.sysctls.has(path)) refuse(`ENOENT: no such file or directory, open '/proc/sys/${path}'`)
    const forwarding =
      path === 'net/ipv4/ip_forward' ? 'net/ipv4/' : path === 'net/ipv6/conf/all/forwarding' ? 'net/ipv6/' : undefined
    if (forwarding !== undefined && this.sysctls.get(path) !== value) {
      for (const other of this.sysctls.keys()) {
        if (other.startsWith(forwarding) && other.endsWith('/forwarding')) this.sysctls.set(other, value)
      }
      if (forwarding === 'net/ipv4/') this.sysctls.set('net/ipv4/conf/all/accept_redirects', value === '1' ? '0' : '1')
    }
    this.sysctls.set(path, value)
  }

  async readLeases(): Promise<Lease[]> {
    return this.leases
  }

  async readState(): Promise<string | undefined> {
    return this.state
  }

  async writeState(text: string | undefined): Promise<void> {
    this.state = text
  }

  async lock(): Promise<() => void> {
    return () => {}
  }

  async mayAdminister(): Promise<boolean> {
    return this.privileged
  }

  /** Removes a sysctl, as in a kernel that lacks it, or sets it as somebody else would. */
  setSysctl(path: string, value: string | undefined): void {
    if (value === undefined) this.sysctls.delete(path)
    else this.sysctls.set(path, value)
  }

  // Inside

  private addSysctls(name: string): void {
    for (const [pattern, initial] of Object.entries(perInterface)) {
      const path = pattern.replace('*', name)
      this.sysctls.set(path, this.sysctls.get(pattern.replace('*', 'default')) ?? initial)
    }
  }

  private execute(argv: readonly string[], input?: string): string {
    const [program, ...rest] = argv
    if (program === 'ip' && rest.includes('-batch')) {
      const options = rest.slice(0, rest.indexOf('-batch'))
      return this.batch(options, input ?? '')
    }
    if (program === 'ip') {
      const options = rest.filter((word) => word.startsWith('-'))
      const [object, ...words] = rest.filter((word) => !word.startsWith('-'))
      const family: Family = options.includes('-6') ? 6 : 4
      if (options.includes('-o') && words[0] === 'show')
        return object === 'rule' ? this.routing.ruleText(family) : this.routing.routeText(family)
      if (object === 'link')
        return JSON.stringify([...this.bridges].map((ifname) => ({ ifname })).filter(() => words[2] === 'bridge'))
      if (object === 'address') return JSON.stringify(this.showAddresses())
      if (object === 'rule') return this.routing.rule(family, words)
      if (object === 'route') return this.routing.route(family, words)
      if (object === 'mptcp') return words[0] === 'limits' ? this.limit(words.slice(1)) : this.endpoint(words.slice(1))
    }
    const tables = program?.match(/^ip(6?)tables-(save|restore)$/)
    if (!tables) return refuse(`the model knows no ${argv.join(' ')}`)
    const family: Family = tables[1] === '6' ? 6 : 4
    return tables[2] === 'save' ? this.iptables.save(family, rest) : this.iptables.restore(family, input ?? '')
  }

  private batch(options: readonly string[], input: string): string {
    let output = ''
    for (const [at, line] of input.split('\n').entries()) {
      if (line === '') continue
      try {
        output += `${this.execute(['ip', ...options, ...line.split(' ')]).trim()}\n`
      } catch (error) {
        if (error instanceof Refusal && options.includes('-force')) {
          this.complaints += `${error.message}\nCommand failed -:${at + 1}\n`
          continue
        }
        if (error instanceof Refusal) refuse(`${error.message}\nCommand failed -:${at + 1}`)
        throw error
      }
    }
    return output
  }

  private showAddresses(): unknown {
    return [...this.devices].map(([ifname, { flags, addresses }]) => ({
      ifname,
      flags,
      addr_info: addresses.map(({ family, address, prefix }) => ({
        family: family === 4 ? 'inet' : 'inet6',
        local: address,
        prefixlen: prefix,
        scope: address.startsWith('fe80:') ? 'link' : 'global',
      })),
    }))
  }

  private limit([verb, ...words]: string[]): string {
    if (verb === 'show') return `add_addr_accepted ${this.limits.add_addr_accepted} subflows ${this.limits.subflows} \n`
    const subflows = Number(words[1])
    if (!(subflows >= 0 && subflows <= 8)) refuse('Error: limit too large.')
    this.limits.subflows = subflows
    return ''
  }

  private endpoint([verb, ...words]: string[]): string {
    if (verb === 'show') {
      const shown = this.endpoints.map(({ id, address, device, flags }) => ({
        address,
        id,
        ...Object.fromEntries(flags.map((flag) => [flag, true])),
        ...(device !== undefined && { dev: device }),
      }))
      return JSON.stringify(shown)
    }
    if (verb === 'delete') {
      const at = this.endpoints.findIndex(({ id }) => id === Number(words[1]))
      if (at < 0) refuse('Error: address not found.')
      this.endpoints.splice(at, 1)
      return ''
    }
    const [address = '', ...options] = words
    const after = (key: string) => (options.includes(key) ? options[options.indexOf(key) + 1] : undefined)
    const flags = options.filter((word) => ['subflow', 'signal', 'backup', 'fullmesh'].includes(word)).sort()
    const device = after('dev')
    const id = Number(after('id'))
    // `ip` prints a deleted device as if<index>, and accepts that name.
    if (device !== undefined && !this.devices.has(device) && !/^if\d+$/.test(device)) refuse(`Cannot find device "${device}"`)
    if (this.endpoints.some((one) => one.id === id || one.address === address)) refuse('Error: duplicate address.')
    if (this.endpoints.length >= 8) refuse('Error: too many addresses.')
    this.endpoints.push({ id, address, device, flags })
    return ''
  }
}
