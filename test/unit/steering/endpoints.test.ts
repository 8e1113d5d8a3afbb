/** Which WANs have endpoints, and what is done in which order when one is lost. */
import t from 'tap'
import { deedTexts, dsl, endpointsOf, home, lte, overDsl, sat, silences } from '../../support/steering.js'

const both = [dsl.address4, lte.address4]

t.test('a WAN over which no HAG answers leaves: attempts first, its endpoint at once', async (t) => {
  const steering = home()
  t.same(endpointsOf(steering, both), both)
  t.same(deedTexts(silences(steering, dsl.address4)), [
    'use paths',
    'use paths',
    'abandon 10.1.0.2',
    'after 1500 ms look 10 times for stranded connections',
    'after 0 ms drop endpoints 10.1.0.2',
    'reconcile',
  ])
  t.same(endpointsOf(steering, both), [lte.address4])
})

t.test('a WAN whose link is gone leaves a moment later, when what it has carried is acknowledged', async (t) => {
  const steering = home()
  const gone = { type: 'link-gone', interface: 'dsl0', what: 'has no carrier' } as const
  t.same(deedTexts(steering.take(gone)), [
    'use WANs lte',
    'use paths',
    'abandon 10.1.0.2',
    'after 1500 ms look 10 times for stranded connections',
    'after 25 ms drop endpoints 10.1.0.2, then reconcile',
    'reconcile, and tell the WANs again',
  ])
  t.same(endpointsOf(steering, both), [lte.address4])
  t.same(steering.take(gone), [], 'once')
})

t.test('an address that was deleted takes its WAN along until the next pass', async (t) => {
  const dual = { ...dsl, address6: '2001:db8:1::2' }
  const steering = home({ wans: [dual, { ...lte, address6: '2001:db8:2::2' }] })
  const texts = deedTexts(steering.take({ type: 'address-gone', address: dsl.address4 }))
  t.same(texts.slice(2), [
    'abandon 10.1.0.2',
    'abandon 2001:db8:1::2',
    'after 1500 ms look 10 times for stranded connections',
    'after 25 ms drop endpoints 10.1.0.2,2001:db8:1::2, then reconcile',
    'reconcile, and tell the WANs again',
  ])
})

t.test('the last WAN keeps its endpoint', async (t) => {
  await t.test('when it falls silent', async (t) => {
    const steering = home()
    silences(steering, lte.address4)
    const texts = deedTexts(silences(steering, dsl.address4))
    t.notOk(texts.some((text) => /abandon|drop/.test(text)))
    t.same(endpointsOf(steering, both), [dsl.address4], 'and the WAN that was lost before gets none meanwhile')
  })
  await t.test('when its link is gone', async (t) => {
    const steering = home({ wans: [dsl] })
    const texts = deedTexts(steering.take({ type: 'link-gone', interface: 'dsl0', what: 'is down' }))
    t.same(texts, ['use WANs ', 'use paths', 'reconcile, and tell the WANs again'])
    t.same(endpointsOf(steering, [dsl.address4]), [dsl.address4])
  })
  await t.test('until another one is back', async (t) => {
    const steering = home()
    silences(steering, lte.address4)
    silences(steering, dsl.address4)
    // It fell lately: two answers are wanted.
    steering.take({ type: 'wan-answered', bind: lte.address4, rttMs: 30 })
    t.same(endpointsOf(steering, both), [dsl.address4])
    const texts = deedTexts(steering.take({ type: 'wan-answered', bind: lte.address4, rttMs: 30 }))
    t.same(endpointsOf(steering, both), [lte.address4])
    t.ok(texts.includes('abandon 10.1.0.2'))
  })
})

t.test('an address that has just come has none before its WAN is found to work, unless no other one does', async (t) => {
  const steering = home({ wans: [dsl, lte] })
  t.same(endpointsOf(steering, [...both, sat.address4]), both, 'not even known')
  steering.take({ type: 'wans-planned', wans: [dsl] })
  steering.take({ type: 'wans-planned', wans: [dsl, lte] })
  t.same(endpointsOf(steering, both), [dsl.address4])
  // It was away lately: two answers are wanted.
  for (const rttMs of [30, 30]) steering.take({ type: 'wan-answered', bind: lte.address4, rttMs })
  t.same(endpointsOf(steering, both), both)
})

t.test('one that comes while it cannot be known yet whether it answers gets an endpoint with another pass', async (t) => {
  const steering = home()
  steering.now -= 9500
  steering.take({ type: 'wans-planned', wans: [dsl] })
  t.same(endpointsOf(steering, both), [dsl.address4], 'the pass that finds its address')
  t.ok(deedTexts(steering.take({ type: 'wans-planned', wans: [dsl, lte] })).includes('reconcile'))
  t.same(endpointsOf(steering, both), both)
})

t.test('no other pass follows the one that has found a WAN gone, whether it had an endpoint or not', async (t) => {
  const steering = home({ wans: [dsl, lte, sat], roles: { sat: 'backup' } })
  t.same(endpointsOf(steering, [...both, sat.address4]), both)
  for (const wans of [[dsl, lte], [dsl]]) {
    const texts = deedTexts(steering.take({ type: 'wans-planned', wans }))
    t.ok(texts.includes(`use WANs ${wans.map(({ name }) => name).join()}`))
    t.notOk(texts.includes('reconcile'), texts.join())
  }
  t.same(endpointsOf(steering, [...both, sat.address4]), [dsl.address4])
})

t.test('a WAN that works and is not in use has none, and leaves with the pass', async (t) => {
  const steering = home({ roles: { lte: 'backup' } })
  t.same(endpointsOf(steering, both), [dsl.address4])
  silences(steering, dsl.address4)
  t.same(endpointsOf(steering, both), [lte.address4])
  const back = [1, 2].flatMap(() => deedTexts(steering.take({ type: 'wan-answered', bind: dsl.address4, rttMs: 10 })))
  t.same(endpointsOf(steering, both), [dsl.address4])
  t.notOk(back.some((text) => /abandon|drop/.test(text)))
  t.ok(back.includes('reconcile'))
})

t.test('a WAN that drops full-size packets is lost as long as there is a better one', async (t) => {
  const steering = home()
  t.ok(deedTexts(steering.take({ type: 'full-size-seen', bind: dsl.address4, passes: false })).includes('abandon 10.1.0.2'))
  t.same(endpointsOf(steering, both), [lte.address4])
  silences(steering, lte.address4)
  t.same(endpointsOf(steering, both), [dsl.address4])
})

t.test('an endpoint that is to be made anew is away for one pass', async (t) => {
  const steering = home()
  t.same(deedTexts(steering.take({ type: 'endpoint-to-remake', bind: lte.address4 })), ['reconcile'])
  t.same(endpointsOf(steering, both), [dsl.address4])
  t.same(deedTexts(steering.take({ type: 'endpoint-removed', bind: lte.address4 })), ['reconcile'])
  t.same(endpointsOf(steering, both), both)
})

t.test('late news of an address that is gone changes nothing', async (t) => {
  const steering = home()
  steering.take({ type: 'link-gone', interface: 'dsl0', what: 'is down' })
  t.same(steering.take({ type: 'wan-answered', bind: overDsl.bind, rttMs: 10 }), [])
  t.same(steering.take({ type: 'mptcp-seen', bind: overDsl.bind, seen: 'blocked' }), [])
})
