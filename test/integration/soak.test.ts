/** A short soak: see test/soak/soak.ts, and `npm run soak` for a long one. */
import t from 'tap'
import { soak } from '../soak/soak.js'
import { needsRoot } from '../support/namespaces.js'

t.test('everything at once for a while', { skip: needsRoot }, async (t) => {
  const seed = Math.floor(Math.random() * 1e6)
  t.comment(`npm run soak -- --minutes 1.5 --seed ${seed}`)
  const { summary, violations } = await soak(t, { minutes: 1.5, seed })
  for (const line of summary) t.comment(line)
  t.same(violations, [])
})
