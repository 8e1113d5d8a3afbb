/** Routes: ours (the tables of the WANs) and those of the main table, from which we learn. */
import * as z from 'zod'
import type { Family } from '../../shared/address.js'
import { type Entry, ip, type MainRoute, type OwnDefault, owned, type Step, step } from '../state.js'
import { readJson } from './json.js'

export interface RouteWords {
  destination: string
  gateway?: string | undefined
  device?: string | undefined
  source?: string | undefined
  onlink?: boolean
  protocol?: number | undefined
  metric?: number | undefined
  /** Other than unicast: `unreachable` and the like. */
  type?: string | undefined
  table: number | string
}

/** What the kernel takes where none is given. */
const defaultMetric = { 4: 0, 6: 1024 }

/** The one spelling of a route. */
export function routeEntry(family: Family, route: RouteWords): Entry {
  const { destination, gateway, device, source, onlink, protocol, metric = defaultMetric[family], type, table } = route
  const words = [
    ...(type === undefined ? [] : [type]),
    destination,
    ...(gateway === undefined ? [] : ['via', gateway]),
    ...(device === undefined ? [] : ['dev', device]),
    // iproute2 gives this scope to every IPv4 route without gateway; IPv6 has no scopes.
    ...(family === 4 && gateway === undefined && type === undefined ? ['scope', 'link'] : []),
    ...(source === undefined ? [] : ['src', source]),
    ...(protocol === undefined ? [] : ['proto', String(protocol)]),
    ...(metric === defaultMetric[family] ? [] : ['metric', String(metric)]),
    ...(onlink ? ['onlink'] : []),
    'table',
    String(table),
  ]
  return { family, spelling: words.join(' ') }
}

const nextHop = z.object({
  gateway: z.string().optional(),
  /** A gateway of the other family (RFC 8950), which we do not learn from. */
  via: z.unknown().optional(),
  dev: z.string().optional(),
  flags: z.array(z.string()).default([]),
})

const routeJson = nextHop.extend({
  type: z.string().optional(),
  dst: z.string().optional(),
  table: z.string().optional(),
  protocol: z.string().optional(),
  prefsrc: z.string().optional(),
  metric: z.number().optional(),
  nexthops: z.array(nextHop).optional(),
})
type RouteJson = z.infer<typeof routeJson> & { dst: string }

const isOurs = ({ table }: RouteJson) => Number(table) >= owned.base && Number(table) < owned.base + owned.count
/** RTPROT_RA; `ip -N` prints numbers, so that nobody's names in /etc/iproute2 confuse us. */
const routerAdvertisement = '9'
/** RT_TABLE_MAIN and RTN_UNICAST, which today's iproute2 does not print. */
const mainTable = '254'
const unicast = '1'

/** RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT */
const refusing: readonly (string | undefined)[] = ['6', '7', '8', 'blackhole', 'unreachable', 'prohibit']
const isInMain = ({ table, type }: RouteJson) => (table === undefined || table === mainTable) && type === undefined
const isRefusing = ({ table, type }: RouteJson) => (table === undefined || table === mainTable) && refusing.includes(type)
const isOwnDefault = (route: RouteJson) =>
  isInMain(route) && route.dst === 'default' && route.nexthops === undefined && route.protocol === String(owned.protocol)

export interface Routes {
  /** Those in our tables. */
  ours: Entry[]
  defaults: OwnDefault[]
  /** The main table's others. */
  main: MainRoute[]
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
      metric: route.metric,
      type: route.type,
      table: route.table ?? '',
      ...more,
    })
  const ours = routes.filter(isOurs).map((route) => entryOf(route, {}))
  const defaults = routes.filter((route) => isInMain(route) && route.dst === 'default')
  const main = routes
    .filter((route) => (isInMain(route) && !isOwnDefault(route)) || isRefusing(route))
    .flatMap((route) =>
      (route.nexthops ?? [route]).flatMap(({ gateway, dev = isRefusing(route) ? 'lo' : undefined, via }) =>
        dev === undefined || via !== undefined
          ? []
          : [
              {
                family,
                destination: route.dst,
                device: dev,
                ...(gateway !== undefined && { gateway }),
                metric: route.metric ?? 0,
                advertised: route.protocol === routerAdvertisement,
                isRefusing: isRefusing(route),
              },
            ],
      ),
    )
  return {
    ours,
    defaults: defaults.filter(isOwnDefault).map((route) => ({
      ...entryOf(route, { table: 'main', protocol: owned.protocol }),
      isFirst: defaults.find(({ metric }) => metric === route.metric) === route,
    })),
    main,
  }
}

/** One route a destination, table and metric: the kernel's key. */
const keyOf = ({ family, spelling }: Entry) =>
  [family, spelling.split(' ')[0], spelling.match(/ metric \d+/)?.[0], spelling.match(/ table \d+$/)?.[0]].join()

/** Where only the way to a destination changes, the route is replaced at once, so that no packet finds none. */
export function diffRoutes(have: readonly Entry[], want: readonly Entry[]): { add: Step[]; remove: Step[] } {
  const isIn = (list: readonly Entry[], { family, spelling }: Entry) =>
    list.some((one) => one.family === family && one.spelling === spelling)
  const command = (verb: string, { family, spelling }: Entry) => ip(family, 'route', verb, spelling)
  const stale = have.filter((route) => !isIn(want, route))
  const add = want
    .filter((route) => !isIn(have, route))
    .map((route) => {
      const at = stale.findIndex((one) => keyOf(one) === keyOf(route))
      if (at < 0) return step(command('add', route), command('del', route))
      const [former] = stale.splice(at, 1)
      return step(command('replace', route), command('replace', former ?? route))
    })
  return { add, remove: stale.map((route) => step(command('del', route), command('add', route))) }
}

/**
 * The default route of the main table: never a moment without one, and never a change of somebody else's. IPv4 keeps several of one metric,
 * so ours is put in front of all the others; IPv6 takes a second one of a metric for another path of the first, so there it is replaced.
 */
export function diffDefault(
  family: Family,
  have: readonly OwnDefault[],
  [want]: readonly Entry[],
): { add: Step[]; remove: Step[] } {
  if (family === 6) return diffRoutes(have, want === undefined ? [] : [want])
  const put = (route: Entry) => ip(4, 'route', 'prepend', route.spelling)
  const take = (route: Entry) => ip(4, 'route', 'del', route.spelling)
  const current = have.find(({ spelling }) => spelling === want?.spelling)
  const stale = have.filter((one) => one !== current).map((route) => step(take(route), put(route)))
  if (want === undefined || current?.isFirst) return { add: [], remove: stale }
  // The same route is not taken twice; the one that came in front of it serves meanwhile.
  const behind = current === undefined ? [] : [step(take(current), put(current))]
  return { add: [...behind, step(put(want), take(want))], remove: stale }
}
