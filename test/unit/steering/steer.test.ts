/** What is done about facts, and what is said of it. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Steer } from '../../../src/gateway/steering/steer.js'
import { memoryLog } from '../../support/memory-log.js'
import { dsl, first, lte, overDsl, overLte, second } from '../../support/steering.js'

function start(t: Test, dropEndpoints = async () => {}) {
  const log = memoryLog()
  const done: string[] = []
  const steer = new Steer({
    config: { wans: [dsl, lte].map((wan) => ({ ...wan, metered: false, role: 'normal' })), onHagDown: 'direct' },
    engine: {
      useDevices: (devices) => done.push(`devices ${devices.map(({ device }) => device).join()}`),
      abandon: (address) => done.push(`abandon ${address}`),
      async resetUpstreams({ address }) {
        done.push(`reset ${address}`)
        return 3
      },
      async resetStranded() {
        done.push('look')
        return 0
      },
      watchUpstreams: ({ address }, isOn) => done.push(`watch ${address} ${isOn}`),
    },
    async dropEndpoints(addresses) {
      done.push(`drop ${addresses.join()}`)
      await dropEndpoints()
    },
    reconcile: (forced) => done.push(`reconcile ${forced?.join() ?? ''}`),
    usePaths: ({ hagPaths }) => done.push(`paths ${hagPaths.length}`),
    onChange: () => {},
    log,
  })
  t.teardown(() => steer.end())
  steer.report({ type: 'wans-planned', wans: [dsl, lte] })
  steer.report({ type: 'hags-changed', hags: [first, second].map((hag, index) => ({ hag, priority: `${index}` })) })
  for (const hag of [first, second]) steer.report({ type: 'hag-answered', hag, path: overDsl })
  for (const { bind } of [overDsl, overLte]) steer.report({ type: 'wan-answered', bind, rttMs: 10 })
  done.length = 0
  log.lines.length = 0
  return { steer, log, done }
}

t.test('a link goes: attempts at once, then the endpoints, then the pass that says no remark twice', async (t) => {
  const { steer, log, done } = start(t, () => Promise.reject(new Error('busy')))
  steer.report({ type: 'link-gone', interface: 'dsl0', what: 'has no carrier' })
  const remark = 'WAN dsl is down: interface dsl0 has no carrier'
  t.same(done, ['devices wwan0', 'paths 2', 'abandon 10.1.0.2', `reconcile ${remark}`])
  t.same(log.lines, [`warn ${remark}`])
  await sleep(60)
  t.same(done.slice(4), ['drop 10.1.0.2', 'reconcile '])
  t.equal(log.lines.at(-1), 'warn an endpoint could not be deleted: busy')
})

t.test('a HAG dies: its connections are reset, and it is said', async (t) => {
  const { steer, log, done } = start(t)
  steer.report({ type: 'hag-request-broken', hag: first, reason: 'it does not answer requests' })
  await sleep(1)
  t.ok(done.includes('reset 203.0.113.3'))
  t.same(log.lines, [
    'warn HAG 203.0.113.3:1080 is down: it does not answer requests',
    'warn 3 connections over HAG 203.0.113.3:1080 were reset, so that their clients begin anew',
  ])
})

t.test('at the end nothing is done any more', async (t) => {
  const { steer, done } = start(t)
  steer.report({ type: 'link-gone', interface: 'dsl0', what: 'is down' })
  steer.end()
  await sleep(60)
  t.notOk(done.some((deed) => deed.startsWith('drop')))
})
