/** When what is asked next. */
import t from 'tap'
import type { HagState } from '../../../src/gateway/steering/hag-states.js'
import { asksForMptcp, greetingDueAt, hagsToAsk, nextRound, requestDueAt } from '../../../src/gateway/steering/schedule.js'
import type { LinkState } from '../../../src/gateway/steering/wan-links.js'
import { dsl, first, home, lte, overDsl, overLte, type Steering, second, silences, silent, six } from '../../support/steering.js'

const linkOf = ({ state }: Steering, bind: string) => state.links.find(({ address }) => address === bind) as LinkState
const hagOf = ({ state }: Steering, index = 0) => state.hags[index] as HagState

t.test('a WAN that is up is probed every second, one that is degraded at once, one without a link not at all', async (t) => {
  const steering = home()
  const next = (bind: string) => nextRound(steering.state, linkOf(steering, bind))
  t.same(next(dsl.address4), { afterMs: 1000, timeoutMs: 300 })
  steering.take({ type: 'wan-silent', bind: dsl.address4, reason: '', isSure: false })
  t.same(next(dsl.address4), { afterMs: 0, timeoutMs: 300 })
  const link = linkOf(steering, lte.address4)
  steering.take({ type: 'link-gone', interface: 'wwan0', what: 'is down' })
  t.same(nextRound(steering.state, steering.state.links.find(({ wan }) => wan === 'lte') ?? link), undefined)
  steering.take({ type: 'hags-changed', hags: [{ hag: six, priority: '0' }] })
  t.same(next(dsl.address4), undefined, 'no HAG has an address of its family')
})

t.test(
  'whether a path carries MPTCP is asked again after 15 minutes, 10 seconds after a fault, 2 after a fallback to TCP',
  async (t) => {
    const steering = home()
    const asks = (afterMs: number) => asksForMptcp(linkOf(steering, dsl.address4), steering.now + afterMs)
    t.equal(asks(0), true, 'not known yet')
    steering.take({ type: 'mptcp-seen', bind: dsl.address4, seen: 'mptcp' })
    t.same([asks(15 * 60_000 - 1), asks(15 * 60_000)], [false, true])
    steering.take({ type: 'mptcp-fell-back', bind: dsl.address4 })
    t.same([asks(1999), asks(2000)], [false, true])
    steering.take({ type: 'mptcp-seen', bind: dsl.address4, seen: 'tcp' })
    t.same([asks(9999), asks(10_000)], [false, true])
    silences(steering, dsl.address4)
    t.equal(asks(60_000), false, 'a WAN that is down must be found to be back as soon as anything passes')
  },
)

t.test('on a WAN whose volume costs money a fault is no reason to ask about MPTCP more often', async (t) => {
  const steering = home({ metered: ['dsl'] })
  steering.take({ type: 'mptcp-seen', bind: dsl.address4, seen: 'blocked' })
  const asks = (afterMs: number) => asksForMptcp(linkOf(steering, dsl.address4), steering.now + afterMs)
  t.same([asks(15 * 60_000 - 1), asks(15 * 60_000)], [false, true])
})

t.test('WANs ask the HAGs that are there first', async (t) => {
  const steering = home({ hags: [first, second, six] })
  for (let times = 0; times < 3; times++) silent(steering, first)
  t.same(hagsToAsk(steering.state.hags, 4), [second, first])
})

t.test(
  'the HAG in use is asked every 500 ms while users are connected; others every 10 s; over metered WANs hardly ever',
  async (t) => {
    const steering = home({ wans: [dsl], hags: [first, second] })
    for (const hag of [first, second]) steering.take({ type: 'hag-answered', hag, path: overDsl })
    const isDue = (index: number, afterMs: number, isRelaying = false) =>
      steering.now + afterMs >= greetingDueAt(steering.state, hagOf(steering, index), { inUse: first, isRelaying, isCalm: false })
    t.same([isDue(0, 499, true), isDue(0, 500, true)], [false, true])
    t.same([isDue(0, 1499), isDue(0, 1500)], [false, true])
    t.same([isDue(1, 9999, true), isDue(1, 10_000, true)], [false, true])
    silent(steering, first)
    t.equal(isDue(0, 0), true, 'after a silence at once')
    const metered = home({ wans: [lte], hags: [first], metered: ['lte'] })
    metered.take({ type: 'hag-answered', hag: first, path: overLte })
    const due = (afterMs: number) =>
      metered.now + afterMs >= greetingDueAt(metered.state, hagOf(metered), { inUse: first, isRelaying: true, isCalm: false })
    t.same([due(60_000), due(15 * 60_000)], [false, true])
  },
)

t.test('a whole CONNECT is asked for every five minutes, and soon where it is not known whether it serves us', async (t) => {
  const steering = home({ hags: [first] })
  const isDue = (afterMs: number) => steering.now + afterMs >= requestDueAt(steering.state, hagOf(steering))
  t.equal(isDue(0), true, 'never asked')
  steering.take({ type: 'hag-asked', hag: first, about: 'request' })
  for (const { bind, wan } of [overDsl, overLte]) {
    steering.take({ type: 'admission-asked', hag: first, bind })
    const path = { wan, bind }
    steering.take({ type: 'hag-request-answered', hag: first, path, isRefused: false, pipelines: true })
  }
  t.same([isDue(5 * 60_000 - 1), isDue(5 * 60_000)], [false, true])
  steering.take({ type: 'hag-trouble', hag: first, about: 'request' })
  t.same([isDue(999), isDue(1000)], [false, true])
  steering.take({ type: 'hag-turned-away', hag: first, path: overLte, how: 'stranger' })
  steering.take({ type: 'hag-asked', hag: first, about: 'request' })
  steering.take({ type: 'admission-asked', hag: first, bind: overLte.bind })
  t.same([isDue(9999), isDue(10_000)], [false, true], 'its rules may have changed')
})
