import t from 'tap'
import {
  answersMissing,
  type Health,
  nextHealth,
  nextProbe,
  type Sign,
  stopPatience,
  unknown,
} from '../../src/gateway/wans/health.js'

const answer: Sign = { type: 'answer', rttMs: 30 }
const silence: Sign = { type: 'silence', reason: 'no HAG answers over it' }
const unplugged: Sign = { type: 'link', present: false, reason: 'no link' }
const plugged: Sign = { type: 'link', present: true, reason: 'its link is back' }

function walk(signs: Sign[], from: Health = unknown, stepMs = 1000): Health {
  return signs.reduce((health, sign, index) => nextHealth(health, sign, index * stepMs), from)
}
const up = walk([answer])

t.test('the first answer makes a WAN usable, three silences in a row unusable', async (t) => {
  t.match(up, { state: 'up', reason: '', rttMs: 30 })
  t.match(walk([silence], up), { state: 'degraded', reason: 'no HAG answers over it' })
  t.match(walk([silence, silence], up), { state: 'degraded' })
  t.match(walk([silence, silence, silence], up), { state: 'down', falls: [2000] })
  t.match(walk([silence, answer, silence, silence], up), { state: 'degraded' }, 'single losses are forgiven')
  t.match(walk([silence, silence, silence]), { state: 'down', falls: [] }, 'what was never up has not fallen')
})

t.test('a WAN that falls often has to prove itself', async (t) => {
  const fall = [silence, silence, silence]
  const once = walk(fall, up, 1)
  t.equal(walk([answer], once, 1).state, 'down')
  t.equal(walk([answer, answer], once, 1).state, 'up')
  const twice = walk([answer, answer, ...fall], once, 1)
  t.equal(walk([answer, answer], twice, 1).state, 'down')
  t.equal(walk([answer, answer, answer], twice, 1).state, 'up')
  t.equal(nextHealth(nextHealth(once, silence, 100_000), answer, 100_000).state, 'up', 'and is trusted again a minute later')
})

t.test('without a link nothing is sent and no late answer counts', async (t) => {
  const down = walk([unplugged], up)
  t.match(down, { state: 'down', reason: 'no link' })
  t.equal(nextProbe(down, false), undefined)
  t.equal(walk([answer], down).state, 'down')
  t.match(walk([plugged], down), { state: 'probing', rttMs: undefined }, 'the way may be a new one')
  t.equal(nextHealth(up, plugged, 0), up, 'it was there all the time')
})

t.test('probes: every second, at once when one is lost, patient with slow lines, rarer on dead ones', async (t) => {
  t.same(nextProbe(unknown, true), { afterMs: 0, timeoutMs: 1000 })
  t.same(nextProbe(up, true), { afterMs: 1000, timeoutMs: 300 })
  t.same(nextProbe(walk([silence], up), true), { afterMs: 0, timeoutMs: 300 })
  t.equal(nextProbe(walk([{ type: 'answer', rttMs: 150 }]), true)?.timeoutMs, 600)
  t.equal(nextProbe(walk([{ type: 'answer', rttMs: 600 }]), true)?.timeoutMs, 1000)
  const waits = (metered: boolean) =>
    Array.from({ length: 11 }, (_, more) => nextProbe(walk(Array(3 + more).fill(silence), up), metered)?.afterMs)
  t.same(waits(false), [400, ...Array(10).fill(500)])
  t.same(waits(true), [400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000, 60_000])
  const patience = Array.from({ length: 5 }, (_, more) => nextProbe(walk(Array(3 + more).fill(silence), up), false)?.timeoutMs)
  t.same(patience, [300, 1000, 300, 300, 300], 'and now and then longer, should it be back by a longer way')
})

t.test(
  'one that answers again is asked ten times a second, until it has answered once more for each recent fall, at most thrice',
  async (t) => {
    const sure: Sign = { type: 'silence', reason: 'stopped', isSure: true }
    let health = up
    for (let fall = 0; fall < 5; fall++) {
      health = walk([sure], health)
      let answers = 0
      do {
        t.equal(answersMissing(health), 1 + Math.min(fall + 1, 3) - answers)
        t.equal(nextProbe(health, true)?.afterMs, answers === 0 ? 100 : 100 - 30, 'from question to question')
        health = walk([answer], health)
        answers++
      } while (health.state !== 'up')
      t.equal(answersMissing(health), 0)
      t.equal(answers, 1 + Math.min(fall + 1, 3))
    }
  },
)

t.test('sure silence is enough for a WAN in use, and for no other', async (t) => {
  const sure: Sign = { type: 'silence', reason: 'stopped', isSure: true }
  t.match(walk([sure], up), { state: 'down', reason: 'stopped', falls: [0] })
  t.match(walk([sure]), { state: 'probing' })
})

t.test('patience after a stop: the least round trip counts, and a WAN that only paused gets more of it', async (t) => {
  const measured = walk([70, 200, 300].map((rttMs) => ({ type: 'answer', rttMs })))
  t.match(measured, { minRttMs: 70 * 1.01 ** 2 })
  t.same(stopPatience(up), { stopMs: 90, timeoutMs: 90 })
  const sure: Sign = { type: 'silence', reason: 'stopped', isSure: true }
  const paused = walk([sure, answer, answer], up, 500)
  t.match(paused, { state: 'up', pauses: [1000] })
  t.same(stopPatience(paused), { stopMs: 180, timeoutMs: 180 })
  const longer = walk([sure, silence, answer, answer], up, 2000)
  t.match(longer, { state: 'up', pauses: [] }, 'what was away for longer was no pause')
})
