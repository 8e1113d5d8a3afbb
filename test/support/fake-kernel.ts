/** A model of the kernel that understands exactly the commands of the network set-up, with the errors that they can meet. */

import { type Family, familyOf, isInside, parseCidr } from '../../src/base/address.js'
import type { CommandResult, Kernel } from '../../src/network/kernel/kernel.js'
import type { Lease } from '../../src/network/state.js'

interface Route {
  family: Family
  table: string
  words: Map<string, string>
  destination: string
  /** `2`: made by the kernel itself. */
  protocol?: string | undefined
}

interface Address {
  family: Family
  address: string
  prefix: number
}

class Refusal extends Error {}

function refuse(text: string): never {
  throw new Refusal(text)
}

const perInterface: Record<string, string> = {
  'net/ipv4/conf/*/forwarding': '0',
  'net/ipv4/conf/*/rp_filter': '1',
  'net/ipv6/conf/*/forwarding': '0',
  'net/ipv6/conf/*/accept_ra': '1',
}

const builtIn: Record<string, string[]> = {
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
}

export class FakeKernel implements Kernel {
  /** Programs that are not installed. */
  readonly missing = new Set<string>()
  privileged = true
  /** Matches and targets that its iptables lacks, as words of a rule, and iptables-restore's message then. */
  readonly lacking = new Map<string, string>()
  /** Without ports. */
  readonly bridges = new Set<string>()
  state: string | undefined
  leases: Lease[] = []
  private readonly devices = new Map<string, { flags: string[]; addresses: Address[] }>()
  private routes: Route[] = []
  private rules: { family: Family; words: Map<string, string> }[] = []
  private endpoints: { id: number; address: string; device: string | undefined; flags: string[] }[] = []
  /** Errors of a batch that goes on after them. */
  private complaints = ''
  private limits = { add_addr_accepted: 0, subflows: 2 }
  private readonly tables: Record<string, Map<string, string[]>> = {}
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
    for (const family of [4, 6] as const) {
      for (const [table, names] of Object.entries(builtIn)) {
        this.tables[`${family}${table}`] = new Map(names.map((name) => [name, []]))
      }
    }
  }

  // The world around us

  addDevice(name: string, flags: readonly string[] = ['BROADCAST', 'UP', 'LOWER_UP']): void {
    this.devices.set(name, { flags: [...flags], addresses: [] })
    this.addSysctls(name)
  }

  removeDevice(name: string): void {
    this.devices.delete(name)
    this.routes = this.routes.filter(({ words }) => words.get('dev') !== name)
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
    this.routes.push({ family, table: 'main', words, destination, protocol: '2' })
  }

  removeAddress(device: string, text: string): void {
    const [address = ''] = text.split('/')
    const found = this.devices.get(device)
    if (found) found.addresses = found.addresses.filter((one) => one.address !== address)
    const network = parseCidr(text)
    this.routes = this.routes.filter(
      ({ destination, protocol, words }) =>
        !(protocol === '2' && destination === `${network?.address}/${network?.prefix}` && words.get('dev') === device),
    )
    // If an interface loses its last IPv4 address, it loses all its IPv4 routes (fib_disable_ip).
    const hasIpv4 = found?.addresses.some((one) => one.family === 4) ?? false
    if (familyOf(address) === 4 && !hasIpv4) {
      this.routes = this.routes.filter(({ family, words }) => family === 6 || words.get('dev') !== device)
    }
    // IPv4 removes routes with their source address; IPv6 only their source.
    this.routes = this.routes.filter(({ words, family }) => family === 6 || words.get('src') !== address)
    for (const { words } of this.routes) if (words.get('src') === address) words.delete('src')
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
      if (options.includes('-o') && words[0] === 'show') return object === 'rule' ? this.ruleText(family) : this.routeText(family)
      if (object === 'link')
        return JSON.stringify([...this.bridges].map((ifname) => ({ ifname })).filter(() => words[2] === 'bridge'))
      if (object === 'address') return JSON.stringify(this.showAddresses())
      if (object === 'rule') return this.rule(family, words)
      if (object === 'route') return this.route(family, words)
      if (object === 'mptcp') return words[0] === 'limits' ? this.limit(words.slice(1)) : this.endpoint(words.slice(1))
    }
    const tables = program?.match(/^ip(6?)tables-(save|restore)$/)
    if (!tables) return refuse(`the model knows no ${argv.join(' ')}`)
    const family: Family = tables[1] === '6' ? 6 : 4
    return tables[2] === 'save' ? this.save(family, rest) : this.restore(family, input ?? '')
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

  /** In their order. */
  private rulesOf(family: Family): Map<string, string>[] {
    const shown = this.rules.filter((one) => one.family === family).map((one) => one.words)
    return shown.sort((one, other) => Number(one.get('pref')) - Number(other.get('pref')))
  }

  private ruleText(family: Family): string {
    const own = [
      [0, '255'],
      [32_766, '254'],
      [32_767, '253'],
    ].map(
      ([pref, table]) =>
        new Map([
          ['pref', `${pref}`],
          ['from', 'all'],
          ['lookup', `${table}`],
        ]),
    )
    const all = [...own, ...this.rulesOf(family)].sort((one, other) => Number(one.get('pref')) - Number(other.get('pref')))
    const line = (words: Map<string, string>) => {
      const shown = [...words].filter(([key]) => key !== 'pref' && key !== 'from').map((pair) => pair.join(' '))
      return `${words.get('pref')}:\tfrom ${words.get('from') ?? 'all'} ${shown.join(' ')}`
    }
    return all.map(line).join('\n')
  }

  private routeText(family: Family): string {
    const lines = this.routes
      .filter((one) => one.family === family)
      .map(({ destination, words, table, protocol }) => {
        const shown = new Map([...words, ...(table === 'main' ? [] : ([['table', table]] as const)), ['proto', protocol ?? '3']])
        return `${destination} ${[...shown].map((pair) => pair.join(' ')).join(' ')} `
      })
    return lines.join('\n')
  }

  private rule(family: Family, [verb, ...words]: string[]): string {
    if (verb === 'show') {
      return JSON.stringify(
        this.rulesOf(family).map((words) => ({
          priority: Number(words.get('pref')),
          src: words.get('from') ?? 'all',
          table: words.get('lookup'),
          ...Object.fromEntries([...words].filter(([key]) => ['iif', 'ipproto', 'sport'].includes(key))),
          ...(words.has('suppress_prefixlength') && { suppress_prefixlen: Number(words.get('suppress_prefixlength')) }),
          ...(words.has('protocol') && { protocol: words.get('protocol') }),
        })),
      )
    }
    const given = new Map([['from', 'all'], ...pairs(words)])
    // In a delete, words that are left out match anything. In an add, an object exists already if all words are equal.
    const isSame = (one: { family: Family; words: Map<string, string> }) =>
      one.family === family && [...given].every(([key, value]) => one.words.get(key) === value)
    const at = this.rules.findIndex((one) => isSame(one) && (verb === 'del' || one.words.size === given.size))
    if (verb === 'add') {
      if (at >= 0) refuse('RTNETLINK answers: File exists')
      this.rules.push({ family, words: given })
    } else {
      if (at < 0) refuse('RTNETLINK answers: No such file or directory')
      this.rules.splice(at, 1)
    }
    return ''
  }

  private route(family: Family, [verb, ...rest]: string[]): string {
    if (verb === 'show') {
      const shown = this.routes.filter((one) => one.family === family)
      return JSON.stringify(shown.map((one) => this.routeJson(one)))
    }
    if (verb === 'flush') {
      const asked = new Map(pairs(rest))
      const goes = (one: Route) => one.table === asked.get('table') && one.protocol === (asked.get('proto') ?? one.protocol)
      this.routes = this.routes.filter((one) => one.family !== family || !goes(one))
      return ''
    }
    if (verb === 'get') return JSON.stringify([this.lookUp(family, rest[1] ?? '', new Map(pairs(rest.slice(2))))])
    const onlink = rest.includes('onlink')
    const [destination = '', ...others] = rest.filter((word) => word !== 'onlink')
    const words = new Map(pairs(others))
    const table = words.get('table') ?? 'main'
    words.delete('table')
    if (onlink) words.set('onlink', 'true')
    // RTPROT_BOOT is not shown.
    const protocol = words.get('proto') === 'boot' ? undefined : words.get('proto')
    words.delete('proto')
    // Ours are written with `metric` where it is not the family's default.
    const peers = this.routes.filter(
      (one) =>
        one.family === family &&
        one.table === table &&
        one.destination === destination &&
        (one.words.get('metric') === words.get('metric') || (verb === 'del' && !words.has('metric'))),
    )
    const isSame = (one: Route) =>
      [...words].every(([key, value]) => one.words.get(key) === value) && (protocol === undefined || one.protocol === protocol)
    if (verb === 'del') {
      const metricOf = (one: Route) => Number(one.words.get('metric') ?? 0)
      const found =
        peers.sort((one, other) => metricOf(one) - metricOf(other)).find(isSame) ?? refuse('RTNETLINK answers: No such process')
      this.routes.splice(this.routes.indexOf(found), 1)
      return ''
    }
    this.checkRoute(words)
    const [first] = peers
    if (first !== undefined && verb === 'add') refuse('RTNETLINK answers: File exists')
    if (verb === 'prepend' && family === 6) refuse('the model knows no ECMP')
    if (verb === 'prepend' && peers.some((one) => isSame(one) && one.protocol === protocol && one.words.size === words.size)) {
      refuse('RTNETLINK answers: File exists')
    }
    const at = first === undefined || verb === 'append' ? this.routes.length : this.routes.indexOf(first)
    this.routes.splice(at, verb === 'replace' && first !== undefined ? 1 : 0, { family, table, words, destination, protocol })
    return ''
  }

  /** The route that is found, rule after rule. */
  private lookUp(family: Family, dst: string, words: Map<string, string>): unknown {
    const [from, oif] = [words.get('from'), words.get('oif')]
    const ofFamily = this.rules.filter((one) => one.family === family).map((one) => one.words)
    const main = new Map([['lookup', 'main']])
    const sorted = ofFamily.sort((one, other) => Number(one.get('pref')) - Number(other.get('pref')))
    for (const rule of [...sorted, main]) {
      const source = rule.get('from') ?? 'all'
      if (source !== 'all' && source !== from) continue
      const table = rule.get('lookup') === '254' ? 'main' : rule.get('lookup')
      const found = this.routes.find(({ words, destination, ...route }) => {
        const network = parseCidr(destination)
        const isDefault = destination === 'default'
        const covers = isDefault ? !rule.has('suppress_prefixlength') : network !== undefined && isInside(dst, [network])
        return covers && route.family === family && route.table === table && (oif === undefined || words.get('dev') === oif)
      })
      if (found === undefined) continue
      return this.routeJson(found)
    }
    return refuse('RTNETLINK answers: Network is unreachable')
  }

  private checkRoute(words: Map<string, string>): void {
    const device = this.devices.get(words.get('dev') ?? '') ?? refuse(`Cannot find device "${words.get('dev')}"`)
    const source = words.get('src')
    if (source !== undefined && !device.addresses.some(({ address }) => address === source)) {
      refuse('Error: Invalid prefsrc address.')
    }
    const gateway = words.get('via')
    if (gateway === undefined || gateway.startsWith('fe80:') || words.has('onlink')) return
    const networks = device.addresses.map(({ address, prefix }) => parseCidr(`${address}/${prefix}`))
    if (
      !isInside(
        gateway,
        networks.filter((one) => one !== undefined),
      )
    )
      refuse('Error: Nexthop has invalid gateway.')
  }

  private routeJson({ family, table, words, destination, protocol }: Route): unknown {
    const metric = words.get('metric') ?? (family === 6 ? '1024' : undefined)
    return {
      dst: destination,
      ...(words.has('via') && { gateway: words.get('via') }),
      dev: words.get('dev'),
      ...(table !== 'main' && { table }),
      ...(protocol !== undefined && { protocol }),
      ...(family === 4 && !words.has('via') && { scope: '253' }),
      ...(words.has('src') && { prefsrc: words.get('src') }),
      ...(metric !== undefined && { metric: Number(metric) }),
      ...(words.has('mtu') && { metrics: [{ mtu: Number(words.get('mtu')) }] }),
      flags: words.has('onlink') ? ['onlink'] : [],
    }
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

  private save(family: Family, options: readonly string[]): string {
    const table = options[options.indexOf('-t') + 1] ?? ''
    const chains = [...(this.tables[`${family}${table}`] ?? refuse(`the model knows no table ${table}`))]
    const heads = chains.map(([name]) => `:${name} ${builtIn[table]?.includes(name) ? 'ACCEPT' : '-'} [0:0]`)
    const counters = options.includes('-c') ? '[0:0] ' : ''
    const rules = chains.flatMap(([name, list]) => list.map((rule) => `${counters}-A ${name} ${rule}`))
    return ['# Generated by the model', `*${table}`, ...heads, ...rules, 'COMMIT', ''].join('\n')
  }

  private restore(family: Family, input: string): string {
    const key = `${family}${input.match(/^\*(\w+)/)?.[1]}`
    const chains = new Map([...(this.tables[key] ?? refuse('no such table'))].map(([name, list]) => [name, [...list]]))
    const chain = (name = '') => chains.get(name) ?? refuse('iptables-restore: No chain/target/match by that name.')
    const isUsed = (name: string) => [...chains.values()].flat().some((rule) => rule.endsWith(` -j ${name}`))
    for (const line of input.split('\n')) {
      const [verb = '', name = '', ...rest] = line.split(' ')
      const rule = rest.join(' ')
      for (const [words, complaint] of this.lacking) if (rule.includes(words)) refuse(complaint)
      const target = rule.match(/-j (\w+)/)?.[1] ?? ''
      if (verb.startsWith(':')) chains.set(verb.slice(1), [])
      else if (verb === '-A' || verb === '-I') {
        if (!['', 'RETURN', 'REDIRECT', 'ACCEPT', 'REJECT', 'DROP'].includes(target)) chain(target)
        if (verb === '-A') chain(name).push(rule)
        else chain(name).splice(Number(rest[0]) - 1, 0, rest.slice(1).join(' '))
      } else if (verb === '-D') {
        const at = chain(name).indexOf(rule)
        if (at < 0) refuse('iptables-restore: Bad rule (does a matching rule exist in that chain?).')
        chain(name).splice(at, 1)
      } else if (verb === '-F') chain(name).length = 0
      else if (verb === '-X') {
        if (chain(name).length > 0 || isUsed(name)) refuse('iptables-restore: Device or resource busy.')
        chains.delete(name)
      } else if (!['*nat', '*filter', 'COMMIT', ''].includes(verb)) refuse(`the model knows no ${line}`)
    }
    this.tables[key] = chains
    return ''
  }
}

function pairs(words: readonly string[]): [string, string][] {
  return words.flatMap((word, at) => (at % 2 === 0 ? [[word, words[at + 1] ?? ''] as [string, string]] : []))
}
