import { join } from 'node:path'
import t from 'tap'
import type { MachineFact } from '../../src/gateway/facts.js'
import { Pace } from '../../src/gateway/pace.js'
import { RoleSampler } from '../../src/gateway/roles/sampler.js'

t.test('one WAN is sampled as well: people look at its rates and its volume', async (t) => {
  const facts: MachineFact[] = []
  let received = 0
  const sampler = new RoleSampler({
    wans: [{ name: 'dsl', monthly_gb: 1 }],
    deviceOf: () => 'ppp0',
    volumeFile: join(t.testdir(), 'volume.json'),
    pace: new Pace({ stats: () => ({ calmMs: 0 }) as ReturnType<ConstructorParameters<typeof Pace>[0]['stats']> }),
    report: (fact) => facts.push(fact),
    emit: () => undefined,
    counters() {
      received += 1000
      return new Map([['ppp0', { received, sent: 0 }]])
    },
  })
  const ended = new AbortController()
  const ran = sampler.run(ended.signal)
  for (let left = 500; facts.length < 2 && left > 0; left--) await new Promise((resolve) => setTimeout(resolve, 10))
  ended.abort()
  await ran
  t.match(facts, [{ type: 'rates-sampled' }, { type: 'rates-sampled' }])
  t.match(sampler.volumeOf('dsl'), { month_bytes: 1000, month_limit_bytes: 1e9 })
})
