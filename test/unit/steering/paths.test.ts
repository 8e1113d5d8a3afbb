/** Where connections go, and over which WAN what is not redirected leaves. */
import t from 'tap'
import {
  dsl,
  first,
  home,
  lte,
  overDsl,
  overLte,
  pathTexts,
  type Steering,
  sat,
  second,
  silences,
  silent,
} from '../../support/steering.js'

const toHags = ({ target }: Steering) => pathTexts(target.paths.hagPaths)
const direct = ({ target }: Steering) => pathTexts(target.paths.direct[4])

t.test('each HAG over every WAN, the quickest first; around the HAGs in the order of the config', async (t) => {
  const steering = home()
  steering.take({ type: 'wan-answered', bind: lte.address4, rttMs: 1 })
  steering.take({ type: 'wan-answered', bind: dsl.address4, rttMs: 200 })
  t.same(toHags(steering), ['203.0.113.3 lte', '203.0.113.3 dsl', '203.0.113.4 lte', '203.0.113.4 dsl'])
  t.same(direct(steering), ['direct dsl', 'direct lte'])
  t.same(pathTexts(steering.target.paths.preparable), ['203.0.113.3 lte', '203.0.113.3 dsl'])
})

t.test('patience is three round trips, and longer before a HAG is gone around', async (t) => {
  const wans = [dsl, lte, sat]
  const steering = home({ wans, hags: [first] })
  for (const rttMs of Array(40).fill(600)) steering.take({ type: 'wan-answered', bind: sat.address4, rttMs })
  const patience = ({ target }: Steering) => target.paths.hagPaths.map(({ patienceMs }) => patienceMs)
  t.same(patience(steering), [150, 150, 1000])
  t.same(patience(home({ hags: [first] })), [150, 1000])
  t.same(patience(home({ hags: [first], onHagDown: 'reject' })), [150, 150])
})

t.test('a WAN that is down is tried only if none works; a HAG that is down only with reject, and last', async (t) => {
  for (const onHagDown of ['direct', 'reject'] as const) {
    const steering = home({ onHagDown })
    silences(steering, dsl.address4)
    t.same(toHags(steering), ['203.0.113.3 lte', '203.0.113.4 lte'])
    for (let times = 0; times < 3; times++) silent(steering, first)
    t.same(toHags(steering), ['203.0.113.4 lte', ...(onHagDown === 'reject' ? ['203.0.113.3 lte'] : [])])
    silences(steering, lte.address4)
    t.same(toHags(steering).slice(0, 2), ['203.0.113.4 dsl', '203.0.113.4 lte'])
  }
})

t.test('a WAN whose path drops MPTCP comes after those that carry it, and is used with TCP', async (t) => {
  const steering = home({ hags: [first] })
  steering.take({ type: 'mptcp-seen', bind: dsl.address4, seen: 'blocked' })
  t.match(steering.target.paths.hagPaths, [
    { wan: 'lte', protocol: 'mptcp' },
    { wan: 'dsl', protocol: 'tcp' },
  ])
  steering.take({ type: 'mptcp-seen', bind: dsl.address4, seen: 'tcp' })
  t.match(steering.target.paths.hagPaths, [{ wan: 'lte' }, { wan: 'dsl', protocol: 'mptcp' }])
  steering.take({ type: 'mptcp-seen', bind: dsl.address4, seen: 'mptcp' })
  t.match(steering.target.paths.hagPaths, [{ wan: 'dsl' }, { wan: 'lte' }])
})

t.test('a backup WAN carries nothing while another one is up, bonded or not', async (t) => {
  const steering = home({ hags: [first], roles: { dsl: 'backup' } })
  t.same(toHags(steering), ['203.0.113.3 lte'])
  t.same(direct(steering), ['direct lte'])
  silences(steering, lte.address4)
  t.same(toHags(steering), ['203.0.113.3 dsl'])
})

t.test('a WAN whose monthly volume is used up is a backup', async (t) => {
  const steering = home({ hags: [first] })
  steering.take({ type: 'rates-sampled', rates: new Map(), exhausted: new Set(['dsl']) })
  t.same(toHags(steering), ['203.0.113.3 lte'])
  t.equal(steering.target.best[4], 'lte')
})

t.test('the best WAN is the first of the config that is usable and in use', async (t) => {
  const steering = home()
  const best = () => steering.target.best[4]
  t.equal(best(), 'dsl')
  silences(steering, dsl.address4)
  t.equal(best(), 'lte')
  silences(steering, lte.address4)
  t.equal(best(), 'lte', 'with none that works it stays')
  for (const bind of [lte.address4, lte.address4, dsl.address4, dsl.address4])
    steering.take({ type: 'wan-answered', bind, rttMs: 10 })
  t.equal(best(), 'dsl')
})

t.test('while nothing is known of the current one, the best WAN stays', async (t) => {
  const steering = home()
  steering.take({ type: 'wans-planned', wans: [lte] })
  t.equal(steering.target.best[4], 'lte')
  const fresh = home({ wans: [dsl, lte], hags: [] })
  fresh.take({ type: 'hags-changed', hags: [{ hag: first, priority: '0' }] })
  fresh.take({ type: 'wans-planned', wans: [] })
  fresh.take({ type: 'wans-planned', wans: [dsl, lte] })
  t.equal(fresh.target.best[4], 'dsl')
})

t.test('while no HAG answers over any WAN, three answers without one show which WAN works', async (t) => {
  const steering = home()
  silences(steering, lte.address4)
  silences(steering, dsl.address4)
  const answer = (path: typeof overDsl) => steering.take({ type: 'direct-answered', path })
  t.equal(steering.target.best[4], 'dsl')
  answer(overLte)
  answer(overLte)
  answer(overDsl)
  answer(overLte)
  answer(overLte)
  t.equal(steering.target.best[4], 'dsl', 'three in a row')
  answer(overLte)
  t.equal(steering.target.best[4], 'lte')
})

t.test(
  'while no HAG answers at all, silence says nothing against a WAN: around the HAGs the order of the config counts',
  async (t) => {
    const steering = home({ hags: [first] })
    silences(steering, dsl.address4)
    t.same(direct(steering), ['direct lte', 'direct dsl'])
    for (let times = 0; times < 3; times++) silent(steering, first)
    t.same(direct(steering), ['direct dsl', 'direct lte'])
  },
)

t.test('a WAN of a family in which no HAG is, is as good as in its other one', async (t) => {
  const dual = { ...dsl, address6: '2001:db8:1::2' }
  const steering = home({ wans: [dual, lte], hags: [first, second] })
  t.match(steering.target.links[6], [{ wan: 'dsl', state: 'up' }])
  silences(steering, dsl.address4)
  t.match(steering.target.links[6], [{ wan: 'dsl', state: 'down' }])
})
