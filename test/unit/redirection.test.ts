/** Which destinations the main table leads elsewhere than to a WAN, as the kernel would look them up. */
import fc from 'fast-check'
import t from 'tap'
import { isInside, parseCidr } from '../../src/base/address.js'
import { destinationsElsewhere, type WanGateways } from '../../src/network/desired/redirection.js'
import type { ForeignRoute } from '../../src/network/state.js'

const wanGateways: WanGateways = new Map<string, ReadonlySet<string | undefined>>([
  ['dsl', new Set(['10.1.0.1'])],
  ['ppp0', new Set([undefined])],
])

function route(text: string): ForeignRoute {
  const [destination = '', ...words] = text.split(' ')
  const after = (key: string) => (words.includes(key) ? words[words.indexOf(key) + 1] : undefined)
  return {
    family: destination.includes(':') ? 6 : 4,
    destination,
    device: after('dev') ?? 'lo',
    gateway: after('via'),
    source: undefined,
    metric: Number(after('metric') ?? 0),
    metrics: '',
    advertised: false,
    isRefusing: words.includes('unreachable'),
  }
}

const listed = (...routes: string[]) =>
  destinationsElsewhere(routes.map(route), wanGateways, 4).map(({ network, isKept }) => `${isKept ? '' : '!'}${network}`)

t.test('what leads elsewhere', async (t) => {
  t.same(listed('default via 10.1.0.1 dev dsl', 'default dev wg0'), [], 'default routes count for nothing')
  t.same(listed('192.168.20.0/24 dev guest0', '10.20.0.0/16 via 10.8.0.2 dev wg0'), ['192.168.20.0/24', '10.20.0.0/16'])
  t.same(listed('198.51.100.7 via 10.1.0.1 dev dsl', '10.64.0.1 dev ppp0'), [], "a WAN's own way")
  t.same(
    listed('10.1.0.0/24 dev dsl', '172.16.0.0/12 via 10.1.0.254 dev dsl'),
    ['10.1.0.0/24', '172.16.0.0/12'],
    'not by its default',
  )
  t.same(listed('10.0.0.0/8 dev lo unreachable'), ['10.0.0.0/8'], 'what leads nowhere')
  t.same(listed('10.0.0.0/8 dev wg0', '10.3.0.0/16 dev wg0', '10.4.0.0/16 via 10.1.0.1 dev dsl'), ['!10.4.0.0/16', '10.0.0.0/8'])
  t.same(listed('0.0.0.0/1 dev tun0', '128.0.0.0/1 dev tun0', '203.0.113.3 via 10.1.0.1 dev dsl'), [
    '!203.0.113.3/32',
    '0.0.0.0/1',
    '128.0.0.0/1',
  ])
  t.same(listed('10.9.0.0/16 dev wg0 metric 50', '10.9.0.0/16 via 10.1.0.1 dev dsl metric 10'), [], 'the least metric rules')
})

t.test('as a look-up of the longest prefix would say', async () => {
  const network = fc.record({ bits: fc.nat(255), prefix: fc.integer({ min: 25, max: 32 }), isWan: fc.boolean() })
  fc.assert(
    fc.property(fc.array(network, { maxLength: 12 }), fc.nat(255), (networks, host) => {
      const routes = networks.map(({ bits, prefix, isWan }) =>
        route(`192.0.2.${bits}/${prefix} ${isWan ? 'via 10.1.0.1 dev dsl' : 'dev wg0'}`),
      )
      const address = `192.0.2.${host}`
      const cidrOf = (text: string) => [parseCidr(text)].filter((one) => one !== undefined)
      const found = routes
        .map((one) => ({ prefix: Number(one.destination.split('/')[1]), isKept: one.device === 'wg0', one }))
        .filter(({ one }) => isInside(address, cidrOf(one.destination)))
        .sort((a, b) => b.prefix - a.prefix || Number(b.isKept) - Number(a.isKept))[0]
      const first = destinationsElsewhere(routes, wanGateways, 4).find((one) => isInside(address, cidrOf(one.network)))
      return (first?.isKept ?? false) === (found?.isKept ?? false)
    }),
  )
})
