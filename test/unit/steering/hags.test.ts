/** Which HAGs are used, and whether one that fell silent is dead or our WANs are. */
import t from 'tap'
import { cheapestLink, greetingDueAt } from '../../../src/gateway/steering/schedule.js'
import {
  deedTexts,
  dsl,
  first,
  home,
  lte,
  overDsl,
  overLte,
  pathTexts,
  type Steering,
  second,
  silences,
  silent,
  six,
} from '../../support/steering.js'

const used = ({ target }: Steering) => target.usableHags.map(({ address }) => address)
const resets = (all: Parameters<typeof deedTexts>[0]) => deedTexts(all).filter((text) => /^reset|^wake/.test(text))
const answered = (steering: Steering, hag = first) => {
  steering.now += 20
  return steering.take({ type: 'hag-answered', hag, path: overDsl })
}
/** Three silences. */
const falls = (steering: Steering, hag = first) => [1, 2, 3].flatMap(() => silent(steering, hag))

t.test('a HAG that is silent three times while another one answers is dead: its connections are reset', async (t) => {
  const steering = home()
  silent(steering, first)
  answered(steering, second)
  silent(steering, first)
  t.same(used(steering), [first.address, second.address])
  t.same(resets(silent(steering, first)), ['reset connections over 203.0.113.3'])
  t.same(used(steering), [second.address])
})

t.test('a HAG that falls silent with all others is no dead one: it may be our WANs', async (t) => {
  const steering = home()
  t.same(resets(falls(steering)), [])
  await t.test('the other one is asked at once', async (t) => {
    const other = steering.state.hags[1]
    const how = { inUse: undefined, isRelaying: false, isCalm: false }
    t.equal(other && greetingDueAt(steering.state, other, how) <= steering.now + 10_000, true)
    t.equal(other?.reportedAt, Number.NEGATIVE_INFINITY)
  })
  await t.test('it answers within two seconds: the first one is dead', async (t) => {
    const steering = home()
    falls(steering)
    steering.now += 1900
    t.same(resets(answered(steering, second)), ['reset connections over 203.0.113.3'])
    t.same(resets(answered(steering, second)), [], 'once')
  })
  await t.test('it answers later: it was our WANs', async (t) => {
    const steering = home()
    falls(steering)
    steering.now += 2000
    t.same(resets(answered(steering, second)), [])
  })
})

t.test('a HAG that takes connections and says nothing is dead if there is another one', async (t) => {
  const steering = home()
  silent(steering, first, { hasConnected: true })
  silent(steering, first, { hasConnected: true })
  t.same(resets(silent(steering, first, { hasConnected: true })), ['reset connections over 203.0.113.3'])
  const only = home({ hags: [first] })
  for (const _ of [1, 2, 3]) t.same(resets(silent(only, first, { hasConnected: true })), [], 'there is nowhere else to go')
})

t.test('the Internet answers without the only HAG: it is dead, if it is still silent when it is asked once more', async (t) => {
  const steering = home({ hags: [first] })
  falls(steering)
  steering.take({ type: 'direct-answered', path: overDsl })
  t.equal(steering.state.hags[0]?.askedAt, Number.NEGATIVE_INFINITY, 'it is asked at once')
  t.same(resets(silent(steering, first, { askedAt: steering.now - 1 })), [], 'asked before that')
  t.same(resets(silent(steering, first)), ['reset connections over 203.0.113.3'])
  const back = home({ hags: [first] })
  falls(back)
  back.take({ type: 'direct-answered', path: overDsl })
  t.same(resets(answered(back)), ['wake connections over 203.0.113.3'])
})

t.test(
  'a HAG whose machine refuses connections is down at the second refusal; its connections find out themselves',
  async (t) => {
    const steering = home()
    steering.take({ type: 'hag-refused', hag: first })
    t.same(used(steering), [first.address, second.address])
    const texts = deedTexts(steering.take({ type: 'hag-refused', hag: first }))
    t.ok(texts.includes('after 500 ms look 10 times for stranded connections'))
    t.notOk(texts.some((text) => text.startsWith('reset')))
    t.same(used(steering), [second.address])
  },
)

t.test('a HAG that is back comes last for ten seconds, and is asked for a whole CONNECT at once', async (t) => {
  const steering = home()
  steering.take({ type: 'hag-refused', hag: first })
  steering.take({ type: 'hag-refused', hag: first })
  t.same(resets(answered(steering)), ['wake connections over 203.0.113.3'])
  t.same(used(steering), [second.address, first.address])
  t.equal(steering.state.hags[0]?.checkedAt, Number.NEGATIVE_INFINITY)
  steering.now += 9000
  answered(steering)
  t.same(used(steering), [second.address, first.address])
  steering.now += 1000
  answered(steering)
  t.same(used(steering), [first.address, second.address])
})

t.test('silence over a full up-link counts only when a probe with more patience meets it', async (t) => {
  const steering = home()
  for (let times = 0; times < 9; times++) silent(steering, first, { isBehindFullWan: true })
  t.same(used(steering), [first.address, second.address])
  t.equal(steering.state.hags[0]?.isBusy, true)
  for (let times = 0; times < 3; times++) silent(steering, first, { isBehindFullWan: true, isPatient: true })
  t.same(used(steering), [second.address])
})

t.test('an answer that came while the WAN was being looked at outweighs the silence', async (t) => {
  const steering = home({ hags: [first] })
  for (let times = 0; times < 3; times++) {
    const silentAt = steering.now
    answered(steering)
    silent(steering, first, { silentAt })
  }
  t.same(used(steering), [first.address])
  t.equal(steering.state.hags[0]?.health.misses, 0)
})

t.test('a HAG that greets and does not do what it is asked is down until it does', async (t) => {
  const steering = home()
  const broken = steering.take({ type: 'hag-request-broken', hag: first, reason: 'it does not answer requests' })
  t.same(resets(broken), ['reset connections over 203.0.113.3'])
  answered(steering)
  t.same(used(steering), [second.address], 'greetings count no more')
  const works = { type: 'hag-request-answered', hag: first, path: overDsl, isRefused: false, pipelines: true } as const
  steering.take(works)
  answered(steering)
  t.same(used(steering), [second.address, first.address])
  t.equal(steering.state.hags[0]?.pipelines, true)
})

t.test('a HAG that refuses one address of ours is used over the other WAN', async (t) => {
  const steering = home({ hags: [first] })
  steering.take({ type: 'hag-turned-away', hag: first, path: overDsl, how: 'stranger' })
  t.same(used(steering), [first.address])
  t.same(pathTexts(steering.target.paths.hagPaths), ['203.0.113.3 lte'])
  t.equal(cheapestLink(steering.state, first)?.wan, 'lte')
  steering.take({ type: 'hag-turned-away', hag: first, path: overLte, how: 'stranger' })
  t.same(used(steering), [], 'and not at all if it refuses both')
  answered(steering)
  t.same(used(steering), [first.address], 'it greets us again')
})

t.test('users that are refused in a row tell that we are meant, if nobody else is served there', async (t) => {
  const steering = home({ hags: [first] })
  steering.take({ type: 'hag-request-answered', hag: first, path: overDsl, isRefused: true, pipelines: undefined })
  t.same(used(steering), [first.address])
  for (let times = 0; times < 3; times++) steering.take({ type: 'request-refused', hag: first, path: overDsl })
  steering.take({ type: 'users-served', hag: first, path: overDsl, isAnyServed: false })
  t.same(pathTexts(steering.target.paths.hagPaths), ['203.0.113.3 lte'])
  steering.now += 5 * 60_000
  steering.take({ type: 'hag-request-answered', hag: first, path: overDsl, isRefused: true, pipelines: undefined })
  t.same(pathTexts(steering.target.paths.hagPaths), ['203.0.113.3 dsl', '203.0.113.3 lte'], 'it is doubted again')
  steering.take({ type: 'hag-request-answered', hag: first, path: overLte, isRefused: false, pipelines: true })
  steering.take({ type: 'hag-request-answered', hag: first, path: overDsl, isRefused: true, pipelines: undefined })
  t.same(pathTexts(steering.target.paths.hagPaths), ['203.0.113.3 lte'], 'served over the other WAN, it is sure')
})

t.test('no HAG finds IPv6 destinations: IPv6 is not redirected, and tried again after five, ten minutes', async (t) => {
  const steering = home({ hags: [first] })
  const destination = { address: '2001:db8:9::7', port: 443 }
  const isCarried = () => steering.target.isIpv6Carried
  for (const minutes of [5, 10]) {
    steering.take({ type: 'ipv6-unreachable', hag: first, destination })
    steering.take({ type: 'ipv6-unreachable', hag: first, destination })
    t.equal(isCarried(), true, 'so far only users say so')
    const texts = deedTexts(steering.take({ type: 'hag-ipv6-answered', hag: first, verdict: 'lacks' }))
    t.same(texts, ['reconcile'])
    t.equal(isCarried(), false)
    steering.now += minutes * 60_000 - 1
    t.same(steering.take({ type: 'tick' }), [])
    steering.now += 1
    steering.take({ type: 'tick' })
    t.equal(isCarried(), true)
  }
})

t.test('the family in which HAGs find most WANs comes first within a priority', async (t) => {
  const dual = { ...dsl, address6: '2001:db8:1::2' }
  const steering = home({ wans: [dual, lte], hags: [] })
  const hags = [six, first].map((hag) => ({ hag, priority: '0' }))
  steering.take({ type: 'hags-changed', hags })
  t.same(used(steering), [first.address, six.address])
  t.same(steering.target.hagFamilies, [4, 6])
  silences(steering, lte.address4)
  t.same(used(steering), [first.address, six.address], 'both are as good: it stays')
  silences(steering, dsl.address4)
  t.same(used(steering), [six.address, first.address])
})

t.test('a WAN that goes in both families at once is no reason to prefer another HAG', async (t) => {
  const wans = [dsl, lte].map((wan, index) => ({ ...wan, address6: `2001:db8:${index + 1}::2` }))
  const steering = home({ wans, hags: [first] })
  steering.take({ type: 'hags-changed', hags: [six, first].map((hag) => ({ hag, priority: '0' })) })
  t.same(used(steering), [first.address, six.address])
  steering.take({ type: 'link-gone', interface: 'dsl0', what: 'has no carrier' })
  t.same(used(steering), [first.address, six.address])
})

t.test('what each connection and each second report costs nothing once it is known', async (t) => {
  const steering = home({ hags: [first] })
  falls(steering)
  for (const { bind } of [overDsl, overLte]) silences(steering, bind)
  const report = () => {
    steering.take({ type: 'hag-trouble', hag: first, about: 'request' })
    steering.take({ type: 'direct-answered', path: overDsl })
    steering.take({ type: 'request-refused', hag: first, path: overDsl })
    steering.take({ type: 'mptcp-fell-back', bind: overDsl.bind })
    steering.take({ type: 'tick' })
  }
  for (let times = 0; times < 3; times++) report()
  const known = steering.state
  for (let times = 0; times < 3; times++) report()
  t.equal(steering.state, known)
})
