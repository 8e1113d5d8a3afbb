import t from 'tap'
import { PathCounters } from '../../src/gateway/connections/path-counters.js'

const hag = { address: '203.0.113.3', port: 1080, username: 'me', password: 'pw' }
const path = (bind: string) =>
  ({ hag, wan: 'dsl', bind, protocol: 'mptcp', pipelined: false, patienceMs: 150, minRttMs: 10 }) as const
const opened = { type: 'opened', connection: 1, attempt: 0, local: { address: '10.1.0.2', port: 5 } } as const

t.test('a WAN that gets another address goes on, and nobody can change what was counted', async (t) => {
  const counters = new PathCounters()
  counters.record(path('10.1.0.2'), { ...opened, protocol: 'mptcp' })
  counters.record(path('10.1.0.9'), { ...opened, protocol: 'tcp' })
  const [counts] = counters.read()
  t.match(counts, { hag: { address: '203.0.113.3', port: 1080 }, wan: 'dsl', opened: 2, fallbacks: 1 })
  t.notOk(JSON.stringify(counts).includes('pw'))
  if (counts !== undefined) counts.failed.connect = 9
  t.equal(counters.read()[0]?.failed.connect, 0)
})
