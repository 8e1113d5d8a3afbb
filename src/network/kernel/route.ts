/** Routes: ours, in tables of our own, and those of others that we need to know. */
import * as z from 'zod/mini'
import type { Family } from '../../base/address.js'
import { type Entry, type ForeignRoute, owned } from '../state.js'
import { ip, type Step, step } from '../step.js'
import { readJson } from './json.js'

export interface RouteWords {
  destination: string
  gateway?: string | undefined
  device?: string | undefined
  source?: string | undefined
  onlink?: boolean
  /** Default: ours. */
  protocol?: string | undefined
  metric?: number | undefined
  /** MTU and the like, as words. */
  metrics?: string
  /** A type other than unicast, such as `unreachable`. */
  type?: string | undefined
  table: number | string
}

/** The kernel's default metrics. */
const defaultMetric = { 4: 0, 6: 1024 }

/** The spelling of a route, the same for equal routes. */
export function routeEntry(family: Family, route: RouteWords): Entry {
  const { destination, gateway, device, source, onlink, metric = defaultMetric[family], metrics = '', type, table } = route
  const { protocol = String(owned.protocol) } = route
  const words = [
    ...(type === undefined ? [] : [type]),
    destination,
    ...(gateway === undefined ? [] : ['via', gateway]),
    ...(device === undefined ? [] : ['dev', device]),
    // iproute2 gives this scope to every IPv4 route without gateway; IPv6 has no scopes.
    ...(family === 4 && gateway === undefined && type === undefined ? ['scope', 'link'] : []),
    ...(source === undefined ? [] : ['src', source]),
    ...['proto', protocol],
    ...(metric === defaultMetric[family] ? [] : ['metric', String(metric)]),
    ...(metrics === '' ? [] : [metrics]),
    ...(onlink ? ['onlink'] : []),
    'table',
    String(table),
  ]
  return { family, spelling: words.join(' ') }
}

const nextHop = z.object({
  gateway: z.optional(z.string()),
  /** A gateway of the other family (RFC 8950). We do not use such routes. */
  via: z.optional(z.unknown()),
  dev: z.optional(z.string()),
  flags: z._default(z.array(z.string()), []),
})

const routeJson = z.extend(nextHop, {
  type: z.optional(z.string()),
  dst: z.optional(z.string()),
  table: z.optional(z.string()),
  protocol: z.optional(z.string()),
  prefsrc: z.optional(z.string()),
  metric: z.optional(z.number()),
  metrics: z._default(z.array(z.record(z.string(), z.unknown())), []),
  nexthops: z.optional(z.array(nextHop)),
})
type RouteJson = z.infer<typeof routeJson> & { dst: string }

const isInOurs = ({ table }: RouteJson) =>
  (Number(table) >= owned.base && Number(table) < owned.base + owned.count) || Number(table) === owned.mainTable
/** RTPROT_RA. `ip -N` prints numbers, so that names in /etc/iproute2 do not matter. */
const routerAdvertisement = '9'
/** RT_TABLE_MAIN and RTN_UNICAST, which today's iproute2 does not print. */
const mainTable = '254'
const unicast = '1'

/** RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT */
const refusing: readonly (string | undefined)[] = ['6', '7', '8', 'blackhole', 'unreachable', 'prohibit']
const isInMain = ({ table, type }: RouteJson) => (table === undefined || table === mainTable) && type === undefined
const isRefusing = ({ table, type }: RouteJson) => (table === undefined || table === mainTable) && refusing.includes(type)
/** Former releases put a default route there. */
const isOwnInMain = (route: RouteJson) =>
  isInMain(route) && route.dst === 'default' && route.nexthops === undefined && route.protocol === String(owned.protocol)

export interface Routes {
  /** Routes in our tables. */
  ours: Entry[]
  /** Routes of the main table. */
  main: ForeignRoute[]
  /** The default routes of all other tables. */
  otherDefaults: ForeignRoute[]
}

/** Metrics that `ip` prints without a number, or for which it reads another word or other units than it prints. */
const metricWords: Record<string, (value: unknown) => string> = {
  ecn: () => 'features ecn',
  congestion: (value) => `congctl ${value}`,
  rtt: (value) => `rtt ${value}ms`,
  rttvar: (value) => `rttvar ${value}ms`,
  rto_min: (value) => `rto_min ${value}ms`,
}
/** Metrics that we copy. Not the initial window, which a HAG sets itself, nor metrics of newer kernels. */
const knownMetrics = new Set([
  ...[
    'mtu',
    'window',
    'rtt',
    'rttvar',
    'ssthresh',
    'cwnd',
    'advmss',
    'reordering',
    'hoplimit',
    'initcwnd',
    'initrwnd',
    'quickack',
  ],
  ...['ecn', 'congestion', 'rto_min'],
])

function metricsOf({ metrics }: RouteJson): string {
  return metrics
    .flatMap((one) => Object.entries(one))
    .filter(([key]) => knownMetrics.has(key))
    .map(([key, value]) => metricWords[key]?.(value) ?? `${key} ${value}`)
    .join(' ')
}

/** Reads `ip -N -j route show table all`. */
export function parseRoutes(json: string | undefined, family: Family): Routes {
  const routes = readJson(routeJson, json, 'route').flatMap(({ dst, type, ...route }) =>
    dst === undefined ? [] : [{ ...route, dst, type: type === unicast ? undefined : type }],
  )
  const entryOf = (route: RouteJson, more: Partial<RouteWords>) =>
    routeEntry(family, {
      destination: route.dst,
      gateway: route.gateway,
      device: route.dev,
      source: route.prefsrc,
      onlink: route.flags.includes('onlink'),
      // RTPROT_BOOT, which `ip` does not show.
      protocol: route.protocol ?? 'boot',
      metric: route.metric,
      metrics: metricsOf(route),
      type: route.type,
      table: route.table ?? '',
      ...more,
    })
  const foreign = (list: readonly RouteJson[]): ForeignRoute[] =>
    list.flatMap((route) =>
      (route.nexthops ?? [route]).flatMap(({ gateway, dev = isRefusing(route) ? 'lo' : undefined, via }) =>
        dev === undefined || via !== undefined
          ? []
          : [
              {
                family,
                destination: route.dst,
                device: dev,
                gateway,
                source: route.prefsrc,
                metric: route.metric ?? 0,
                metrics: metricsOf(route),
                advertised: route.protocol === routerAdvertisement,
                isRefusing: isRefusing(route),
              },
            ],
      ),
    )
  const isOther = (route: RouteJson) => !isInMain(route) && !isInOurs(route) && route.type === undefined
  return {
    ours: [
      ...routes.filter(isInOurs).map((route) => entryOf(route, {})),
      ...routes.filter(isOwnInMain).map((route) => entryOf(route, { table: 'main' })),
    ],
    main: foreign(routes.filter((route) => (isInMain(route) && !isOwnInMain(route)) || isRefusing(route))),
    otherDefaults: foreign(routes.filter((route) => isOther(route) && route.dst === 'default')),
  }
}

/** The kernel's key: there is one route for each destination, table and metric. */
const keyOf = ({ family, spelling }: Entry) =>
  [family, spelling.split(' ')[0], spelling.match(/ metric \d+/)?.[0], spelling.match(/ table \d+$/)?.[0]].join()

const isOurs = ({ spelling }: Entry) => spelling.includes(` proto ${owned.protocol} `)

/**
 * If only the next hop of a destination changes, the route is replaced in one step, so that every packet finds one. So are routes in our
 * tables without our mark, which former releases left when they were killed.
 */
export function diffRoutes(have: readonly Entry[], want: readonly Entry[]): { add: Step[]; remove: Step[] } {
  const isIn = (list: readonly Entry[], { family, spelling }: Entry) =>
    list.some((one) => one.family === family && one.spelling === spelling)
  const command = (verb: string, { family, spelling }: Entry) => ip(family, 'route', verb, spelling)
  const stale = have.filter((route) => !isIn(want, route))
  const add = want
    .filter((route) => !isIn(have, route))
    .map((route) => {
      const at = stale.findIndex((one) => keyOf(one) === keyOf(route))
      if (at < 0) return step('route-added', command('add', route), command('del', route))
      const [former] = stale.splice(at, 1)
      return step('route-added', command('replace', route), command('replace', former ?? route))
    })
  return { add, remove: stale.filter(isOurs).map((route) => step('route-deleted', command('del', route), command('add', route))) }
}
