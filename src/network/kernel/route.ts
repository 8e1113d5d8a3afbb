/** Routes: ours (the tables of the WANs) and those of the main table, from which we learn. */
import type { Family } from '../../shared/address.js'
import { type Entry, ip, type MainRoute, owned, type Step, step } from '../state.js'

export interface RouteWords {
  destination: string
  gateway?: string | undefined
  device?: string | undefined
  source?: string | undefined
  onlink?: boolean
  metric?: number | undefined
  /** Other than unicast: `unreachable` and the like. */
  type?: string | undefined
  table: number | string
}

/** What the kernel takes where none is given. */
const defaultMetric = { 4: 0, 6: 1024 }

/** The one spelling of a route. */
export function routeEntry(family: Family, route: RouteWords): Entry {
  const { destination, gateway, device, source, onlink, metric = defaultMetric[family], type, table } = route
  const words = [
    ...(type === undefined ? [] : [type]),
    destination,
    ...(gateway === undefined ? [] : ['via', gateway]),
    ...(device === undefined ? [] : ['dev', device]),
    // iproute2 gives this scope to every IPv4 route without gateway; IPv6 has no scopes.
    ...(family === 4 && gateway === undefined && type === undefined ? ['scope', 'link'] : []),
    ...(source === undefined ? [] : ['src', source]),
    ...(metric === defaultMetric[family] ? [] : ['metric', String(metric)]),
    ...(onlink ? ['onlink'] : []),
    'table',
    String(table),
  ]
  return { family, spelling: words.join(' ') }
}

interface NextHopJson {
  gateway?: string
  /** A gateway of the other family (RFC 8950), which we do not learn from. */
  via?: unknown
  dev?: string
  flags?: string[]
}

interface RouteJson extends NextHopJson {
  type?: string
  dst: string
  table?: string
  protocol?: string
  prefsrc?: string
  metric?: number
  nexthops?: NextHopJson[]
}

const isOurs = ({ table }: RouteJson) => Number(table) >= owned.base && Number(table) < owned.base + owned.count
/** RTPROT_RA; `ip -N` prints numbers, so that nobody's names in /etc/iproute2 confuse us. */
const routerAdvertisement = '9'

/** Reads `ip -N -j route show table all`: our tables' routes and the main table's. */
export function parseRoutes(json: string | undefined, family: Family): { ours: Entry[]; main: MainRoute[] } {
  const routes = JSON.parse(json || '[]') as RouteJson[]
  const ours = routes.filter(isOurs).map((route) =>
    routeEntry(family, {
      destination: route.dst,
      gateway: route.gateway,
      device: route.dev,
      source: route.prefsrc,
      onlink: route.flags?.includes('onlink') ?? false,
      metric: route.metric,
      type: route.type,
      table: route.table ?? '',
    }),
  )
  const main = routes
    .filter(({ table, type }) => table === undefined && type === undefined)
    .flatMap((route) =>
      (route.nexthops ?? [route]).flatMap(({ gateway, dev, via }) =>
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
              },
            ],
      ),
    )
  return { ours, main }
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
