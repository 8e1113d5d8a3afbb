/** What is done about facts, and what is said of it. */
import t, { type Test } from 'tap'
import { Steer } from '../../../src/gateway/steering/steer.js'
import { toLog } from '../../../src/telemetry/events.js'
import { memoryLog } from '../../support/memory-log.js'
import { dsl, first, lte, overDsl, overLte, second } from '../../support/steering.js'
import { virtualTime } from '../../support/virtual-time.js'

function start(t: Test, dropEndpoints = async () => {}) {
  const time = virtualTime(t)
  const log = memoryLog()
  const done: string[] = []
  const steer = new Steer({
    config: { wans: [dsl, lte].map((wan) => ({ ...wan, metered: false, role: 'normal' })), onHagDown: 'direct' },
    engine: {
      useDevices: (devices) => done.push(`devices ${devices.map(({ device }) => device).join()}`),
      abandon: (address) => done.push(`abandon ${address}`),
      async resetConnectionsTo({ address }) {
        done.push(`reset ${address}`)
        return 3
      },
      async resetStranded() {
        done.push('look')
        return 0
      },
      watchConnectionsTo: ({ address }, isOn) => done.push(`watch ${address} ${isOn}`),
    },
    async dropEndpoints(addresses) {
      done.push(`drop ${addresses.join()}`)
      await dropEndpoints()
    },
    reconcile: (forced) => done.push(`reconcile ${forced?.join() ?? ''}`),
    usePaths: ({ hagPaths }) => done.push(`paths ${hagPaths.length}`),
    onChange: () => {},
    emit: toLog(log),
    log,
  })
  t.teardown(() => steer.end())
  steer.report({ type: 'wans-planned', wans: [dsl, lte] })
  steer.report({ type: 'hags-changed', hags: [first, second].map((hag, index) => ({ hag, priority: `${index}` })) })
  for (const hag of [first, second]) steer.report({ type: 'hag-answered', hag, path: overDsl })
  for (const { bind } of [overDsl, overLte]) steer.report({ type: 'wan-answered', bind, rttMs: 10 })
  done.length = 0
  log.lines.length = 0
  return { time, steer, log, done }
}

t.test('a link goes: attempts at once, then the endpoints, then the pass that says no remark twice', async (t) => {
  const { time, steer, log, done } = start(t, () => Promise.reject(new Error('busy')))
  steer.report({ type: 'link-gone', interface: 'dsl0', what: 'has no carrier' })
  const remark = 'WAN dsl is down: interface dsl0 has no carrier'
  t.same(done, ['devices wwan0', 'paths 2', 'abandon 10.1.0.2', `reconcile ${remark}`])
  t.same(log.lines, [`warn ${remark}`])
  await time.advance(60)
  t.same(done.slice(4), ['drop 10.1.0.2', 'reconcile '])
  t.equal(log.lines.at(-1), 'warn an endpoint could not be deleted: busy')
})

t.test('a HAG dies: its connections are reset, and it is said', async (t) => {
  const { time, steer, log, done } = start(t)
  steer.report({ type: 'hag-request-broken', hag: first, reason: 'it does not answer requests' })
  await time.advance(1)
  t.ok(done.includes('reset 203.0.113.3'))
  t.same(log.lines, [
    'warn HAG 203.0.113.3:1080 is down: it does not answer requests',
    'warn 3 connections over HAG 203.0.113.3:1080 were reset, so that their clients begin anew',
  ])
})

t.test('at the end nothing is done any more', async (t) => {
  const { time, steer, done } = start(t)
  steer.report({ type: 'link-gone', interface: 'dsl0', what: 'is down' })
  steer.end()
  await time.advance(60)
  t.notOk(done.some((deed) => deed.startsWith('drop')))
})

t.test(
  'connections without a subflow are not reset while a pass is under way, or another WAN may be about to join them',
  async (t) => {
    const { time, steer, done } = start(t)
    const looks = () => done.filter((deed) => deed === 'look').length
    const after = async (milliseconds: number) => {
      await time.advance(milliseconds)
      return looks()
    }
    steer.report({ type: 'link-gone', interface: 'wwan0', what: 'has no carrier' })
    t.equal(await after(1499), 0)
    t.equal(await after(30), 1, '1.5 s after the endpoint was dropped')
    t.equal(await after(500), 2, 'and again, because a join may still fail')
    steer.passBegins()
    t.equal(await after(3000), 2, 'on a slow machine a pass takes long')
    steer.passEnds({ areAdded: false, areDeleted: true })
    t.equal(await after(1499), 2, 'it has deleted the endpoint of the other WAN')
    t.equal(await after(101), 4, 'by then the first one has joined: the look that waited, and one for what was deleted')
    steer.passBegins()
    steer.passEnds({ areAdded: false, areDeleted: false })
    t.equal(await after(500), 5, 'a pass that changes no endpoint holds nobody up')
    steer.passBegins()
    steer.passEnds({ areAdded: true, areDeleted: false })
    t.equal(await after(1499), 5, 'over an endpoint that was added another WAN is about to join')
    t.equal(await after(501), 7)
    for (let flaps = 0; flaps < 10; flaps++) {
      await time.advance(700)
      steer.passBegins()
      steer.passEnds({ areAdded: false, areDeleted: true })
    }
    t.ok(looks() > 5, 'and a link that flaps not for ever')
  },
)
