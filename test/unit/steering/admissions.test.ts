/** Which HAG serves us over which WAN, from probes and from what users meet. */
import t from 'tap'
import { admissionDueAt, isRefused, isToConfirm } from '../../../src/gateway/steering/admissions.js'
import { first, home, overDsl, overLte, pathTexts, second } from '../../support/steering.js'

const line = 'warn HAG 203.0.113.3:1080 refuses us over WAN lte, from 10.2.0.2: '

function start() {
  const steering = home()
  const refused = (hag = first) =>
    [overDsl, overLte].filter(({ bind }) => isRefused(steering.state.admissions, hag, bind)).map(({ wan }) => wan)
  const turnedAway = () => steering.take({ type: 'hag-turned-away', hag: first, path: overLte, how: 'stranger' })
  const greeted = () => steering.take({ type: 'hag-answered', hag: first, path: overLte })
  const answered = (isRefused: boolean, path = overLte, hag = first) =>
    steering.take({ type: 'hag-request-answered', hag, path, isRefused, pipelines: undefined })
  /** True if it is to be asked whether other users are served. */
  const userRefused = () => {
    steering.take({ type: 'request-refused', hag: first, path: overLte })
    return isToConfirm(steering.state.admissions, first, overLte.bind)
  }
  const othersServed = (isAnyServed: boolean) => steering.take({ type: 'users-served', hag: first, path: overLte, isAnyServed })
  return { steering, refused, turnedAway, greeted, answered, userRefused, othersServed }
}

t.test('turned away, and taken in again: each said once, and followed at once', async (t) => {
  const { steering, refused, turnedAway, greeted } = start()
  for (let count = 0; count < 3; count++) turnedAway()
  t.same([refused(), refused(second)], [['lte'], []])
  t.same(steering.lines.slice(-1), [
    `${line}our address is not in its \`clients\`: add it there, or behind a NAT the one that its log refuses`,
  ])
  t.same(pathTexts(steering.target.paths.hagPaths), ['203.0.113.3 dsl', '203.0.113.4 dsl', '203.0.113.4 lte'])
  const said = steering.lines.length
  for (let count = 0; count < 3; count++) greeted()
  t.same(refused(), [])
  t.same(steering.lines.slice(said), ['info HAG 203.0.113.3:1080 serves us over WAN lte, from 10.2.0.2'])
})

t.test('one request that is not allowed says nothing; that it is allowed over another WAN does', async (t) => {
  const { steering, refused, answered, greeted } = start()
  const said = steering.lines.length
  answered(true)
  answered(false, overDsl, second)
  t.same([refused(), steering.lines.length], [[], said], 'another HAG has other rules')
  answered(false, overDsl)
  answered(true)
  t.same(refused(), ['lte'])
  greeted()
  t.same(refused(), ['lte'], 'a greeting is not what it refuses')
  answered(false)
  t.same(refused(), [])
})

t.test("users' requests tell if nothing else does, and what was served counts more", async (t) => {
  const { steering, refused, answered, userRefused, othersServed } = start()
  const said = steering.lines.length
  answered(true)
  t.same([userRefused(), userRefused(), userRefused()], [false, false, true])
  othersServed(true)
  t.same([userRefused(), userRefused(), refused()], [false, false, []])
  t.equal(userRefused(), true)
  othersServed(false)
  t.same(refused(), ['lte'])
  answered(true)
  t.same(refused(), ['lte'])
  steering.now += 5 * 60_000
  answered(true)
  t.same(refused(), [], 'after a while users try it again')
  for (let count = 0; count < 3; count++) if (userRefused()) othersServed(false)
  t.same([refused(), steering.lines.length], [['lte'], said + 1], 'and that is nothing new')
})

t.test('users who are refused while our request is answered met a rule about their destinations', async (t) => {
  const { refused, answered, userRefused } = start()
  answered(false)
  for (let count = 0; count < 30; count++) t.equal(userRefused(), false)
  t.same(refused(), [])
})

t.test('what is asked, and how often', async (t) => {
  const { steering, refused, answered, turnedAway, userRefused } = start()
  const { bind } = overLte
  const isDue = () =>
    [false, true].map((metered) => steering.now >= admissionDueAt(steering.state.admissions, first, { bind, metered }))
  const ask = () => steering.take({ type: 'admission-asked', hag: first, bind })
  t.same(isDue(), [true, true])
  ask()
  t.same(isDue(), [false, false], 'an answer may be under way')
  steering.now += 30_000
  t.same(isDue(), [true, false])
  answered(false)
  steering.now += 3_600_000
  t.same(isDue(), [false, false], 'one that serves us')
  for (let count = 0; count < 3; count++) userRefused()
  t.same(isDue(), [true, true], 'its rules may have changed')
  answered(false)
  t.same(isDue(), [false, false], 'they have not')
  turnedAway()
  ask()
  steering.now += 10_000
  t.same(isDue(), [true, false])
  steering.now += 15 * 60_000
  t.same(isDue(), [true, true])
  ask()
  for (let count = 0; count < 2; count++) steering.take({ type: 'hag-refused', hag: first })
  t.same(isDue(), [false, false], 'it is down')
  steering.take({ type: 'hag-answered', hag: first, path: overDsl })
  t.same(isDue(), [true, true], 'it is back, perhaps with other rules')
  ask()
  steering.take({ type: 'hag-answered', hag: first, path: overDsl })
  t.same(isDue(), [false, false], 'once')
  steering.take({ type: 'hags-changed', hags: [{ hag: second, priority: '0' }] })
  t.same(refused(), [], 'a HAG that is gone')
})

t.test('a HAG that is not known any more is not learned of', async (t) => {
  const { steering, userRefused } = start()
  steering.take({ type: 'hags-changed', hags: [{ hag: second, priority: '0' }] })
  const before = steering.state
  t.equal(userRefused(), false)
  t.equal(steering.state, before)
})
