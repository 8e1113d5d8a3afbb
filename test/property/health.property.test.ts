import fc from 'fast-check'
import t from 'tap'
import { isUsable } from '../../src/gateway/model.js'
import { type Health, nextHealth, nextProbe, type Sign, unknown } from '../../src/gateway/wans/health.js'

const sign: fc.Arbitrary<Sign> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant('answer' as const), rttMs: fc.double({ min: 0, max: 3000, noNaN: true }) }),
  },
  { weight: 4, arbitrary: fc.constant({ type: 'silence', reason: 'silent' } as const) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('link' as const), present: fc.boolean(), reason: fc.constant('link') }) },
)
const walk = fc.array(fc.tuple(sign, fc.nat(20_000)), { maxLength: 200 })

t.test('whatever comes in whatever order', async (t) => {
  fc.assert(
    fc.property(walk, (steps) => {
      let health: Health = unknown
      let now = 0
      for (const [one, waited] of steps) {
        now += waited
        const before = health
        health = nextHealth(before, one, now)
        const probe = nextProbe(health, false)
        // Never stuck: a WAN with a link is always probed again, soon; one without never.
        if (health.link !== (probe !== undefined)) return false
        if (
          probe !== undefined &&
          !(probe.afterMs >= 0 && probe.afterMs <= 1000 && probe.timeoutMs >= 300 && probe.timeoutMs <= 1000)
        )
          return false
        // Only an answer makes a WAN usable, only silence or a lost link makes it unusable.
        if (isUsable(health) && !isUsable(before) && one.type !== 'answer') return false
        if (!isUsable(health) && isUsable(before) && one.type === 'answer') return false
        if (health.reason === '' && health.state !== 'up') return false
      }
      // Five good answers bring back any WAN whose link is there.
      health = nextHealth(health, { type: 'link', present: true, reason: 'link' }, now)
      for (let i = 0; i < 5; i++) health = nextHealth(health, { type: 'answer', rttMs: 30 }, now)
      return health.state === 'up'
    }),
    { numRuns: 2000 },
  )
  t.pass()
})
