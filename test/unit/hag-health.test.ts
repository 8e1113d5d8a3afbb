import fc from 'fast-check'
import t from 'tap'
import { type HagHealth, type HagSign, nextHag, unknownHag } from '../../src/gateway/hags/health.js'

const answer: HagSign = { type: 'answer' }
const refused: HagSign = { type: 'refused' }
/** The question was put then. */
const silence = (askedAt: number): HagSign => ({ type: 'silence', reason: 'no answer', askedAt })
const walk = (steps: [HagSign, number][], from: HagHealth = unknownHag) =>
  steps.reduce((health, [sign, now]) => nextHag(health, sign, now), from)

t.test('from unknown to up, and down after two refusals or three silences', async (t) => {
  const up = walk([[answer, 0]])
  t.equal(up.state, 'up')
  t.equal(walk([[refused, 1]], up).state, 'up')
  t.match(
    walk(
      [
        [refused, 1],
        [refused, 2],
      ],
      up,
    ),
    { state: 'down', reason: 'connection refused, nothing listens there' },
  )
  t.equal(
    walk(
      [
        [silence(1), 1],
        [silence(2), 2],
      ],
      up,
    ).state,
    'up',
  )
  t.match(
    walk(
      [
        [silence(1), 1],
        [silence(2), 2],
        [silence(3), 3],
      ],
      up,
    ),
    { state: 'down', reason: 'no answer' },
  )
  t.equal(
    walk(
      [
        [silence(1), 1],
        [silence(2), 2],
        [answer, 3],
        [silence(4), 4],
        [silence(5), 5],
      ],
      up,
    ).state,
    'up',
    'an answer between',
  )
  t.match(walk([[{ type: 'unfit', reason: 'mute' }, 1]], up), { state: 'down', reason: 'mute' }, 'enough was heard')
})

t.test('however many questions were open in one silence, it counts once', async (t) => {
  const missed = walk([
    [answer, 0],
    [silence(100), 200],
    [silence(110), 280],
    [silence(120), 290],
    [silence(200), 450],
    [silence(200), 450],
    [silence(440), 500],
  ])
  t.match(missed, { state: 'up', misses: 2 })
  t.equal(walk([[silence(450), 700]], missed).state, 'down')
})

t.test('on the way back it has to answer for ten seconds; one miss, and it starts again', async (t) => {
  const down = walk([
    [refused, 0],
    [refused, 1],
  ])
  const returning = walk([[answer, 1000]], down)
  t.equal(returning.state, 'returning')
  t.equal(
    walk(
      [
        [answer, 5000],
        [answer, 10_999],
      ],
      returning,
    ).state,
    'returning',
  )
  t.equal(
    walk(
      [
        [answer, 5000],
        [answer, 11_000],
      ],
      returning,
    ).state,
    'up',
  )
  t.equal(
    walk(
      [
        [answer, 5000],
        [silence(6000), 6000],
      ],
      returning,
    ).state,
    'down',
  )
})

t.test('whatever comes in whatever order: only these ways lead from one state to another', async () => {
  const allowed = new Set([...['unknown up', 'unknown down', 'up down', 'down returning', 'returning up', 'returning down']])
  const sign = fc.constantFrom<(HagSign | undefined)[]>(answer, refused, undefined, { type: 'unfit', reason: 'x' })
  fc.assert(
    fc.property(fc.array(fc.tuple(sign, fc.nat(20_000)), { maxLength: 200 }), (steps) => {
      let health = unknownHag
      let now = 0
      for (const [one, later] of steps) {
        now += later
        const before = health
        health = nextHag(before, one ?? silence(now), now)
        if (before.state !== health.state) {
          if (!allowed.has(`${before.state} ${health.state}`)) throw new Error(`${before.state} -> ${health.state}`)
          if (health.since !== now) throw new Error('a state begins when it begins')
        }
        if (health.state === 'up' && before.state === 'returning' && now - before.since < 10_000) throw new Error('too soon')
        if (health.state === 'down' && health.reason === '') throw new Error('down without a reason')
        if (one?.type === 'answer' && health.state === 'down') throw new Error('down although it answers')
      }
    }),
    { numRuns: 500 },
  )
})
