import t from 'tap'
import { LimitTally } from '../../src/service/limit-tally.js'

const refused = { type: 'client-refused', client: '203.0.113.9', limit: '75 x', destination: '' } as const

t.test('refusals add up, and a limit is reached until it is not', async (t) => {
  const tally = new LimitTally()
  t.same(tally.read(), { reached: [], refused: {} })
  tally.record({ ...refused, cause: 'share', count: 1 })
  tally.record({ ...refused, cause: 'share', count: 7, during: 'last-minute' })
  tally.record({ ...refused, cause: 'not-a-client', count: 2 })
  tally.record({ type: 'others-refused', count: 40, during: 'last-minute' })
  tally.record({ type: 'limit', cause: 'descriptors', isReached: true, limit: '9 x' })
  tally.record({ type: 'limit', cause: 'pipes', isReached: true, limit: '9 x' })
  tally.record({ type: 'limit', cause: 'descriptors', isReached: false, limit: '9 x' })
  tally.record({ type: 'gateway-runs' })
  t.same(tally.read(), { reached: ['pipes'], refused: { share: 8, 'not-a-client': 2, others: 40 } })
})
