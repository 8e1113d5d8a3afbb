import t from 'tap'
import { TokenBucket } from '../../src/gateway/wans/probe-budget.js'

t.test('a question asked for each second of a month: what it costs', async (t) => {
  const bucket = new TokenBucket(0)
  let taken = 0
  let first = 0
  for (let second = 1; second <= 30 * 86_400; second++) {
    if (bucket.take(second * 1000)) taken += 1
    if (second === 60) first = taken
  }
  t.ok(first >= 3, 'enough at once to be sure of a WAN that has died')
  t.ok(taken > 3000, 'and never none for long')
  t.ok(taken * 500 < 3e6, `${taken} questions`)
})
