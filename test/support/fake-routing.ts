/** The model's routes and rules, with what `ip` prints of them and takes. */
import { type Family, isInside, parseCidr } from '../../src/base/address.js'
import { pairs, refuse } from './refusal.js'

interface Route {
  family: Family
  table: string
  words: Map<string, string>
  destination: string
  /** `2`: made by the kernel itself. */
  protocol?: string | undefined
}

/** Their addresses are the sources that a route may have. */
type Devices = ReadonlyMap<string, { addresses: readonly { address: string; prefix: number }[] }>

export class FakeRouting {
  routes: Route[] = []
  private rules: { family: Family; words: Map<string, string> }[] = []

  constructor(private readonly devices: Devices) {}

  /** In their order. */
  private rulesOf(family: Family): Map<string, string>[] {
    const shown = this.rules.filter((one) => one.family === family).map((one) => one.words)
    return shown.sort((one, other) => Number(one.get('pref')) - Number(other.get('pref')))
  }

  ruleText(family: Family): string {
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

  routeText(family: Family): string {
    const lines = this.routes
      .filter((one) => one.family === family)
      .map(({ destination, words, table, protocol }) => {
        const shown = new Map([...words, ...(table === 'main' ? [] : ([['table', table]] as const)), ['proto', protocol ?? '3']])
        return `${destination} ${[...shown].map((pair) => pair.join(' ')).join(' ')} `
      })
    return lines.join('\n')
  }

  rule(family: Family, [verb, ...words]: string[]): string {
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

  route(family: Family, [verb, ...rest]: string[]): string {
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
}
