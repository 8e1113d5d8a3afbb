import t from 'tap'
import { MptcpSupport } from '../../src/gateway/wans/mptcp-support.js'

const minute = 60_000

t.test('a clean path is asked seldom, one with a fault soon, unless it costs money', async (t) => {
  for (const metered of [false, true]) {
    const path = new MptcpSupport(metered)
    t.equal(path.dueAt, 0)
    t.equal(path.recordProbe('mptcp', 1000), false, 'no news')
    t.equal(path.dueAt, 1000 + 15 * minute)
    t.equal(path.recordProbe('blocked', 2000), true)
    t.match(path, { protocol: 'tcp', isPoor: true, dueAt: 2000 + (metered ? 15 * minute : 10_000) })
    t.equal(path.recordProbe('tcp', 3000), true)
    t.match(path, { protocol: 'mptcp', isPoor: true })
    t.equal(path.recordProbe(undefined, 4000), false)
    t.equal(path.recordProbe('mptcp', 5000), true)
    t.match(path, { protocol: 'mptcp', isPoor: false })
  }
})

t.test('doubt leads to a question every two seconds at most', async (t) => {
  const path = new MptcpSupport(false)
  t.equal(path.recordFallback(), false, 'where it is due anyway')
  path.recordProbe('mptcp', 1000)
  t.equal(path.recordFallback(), true)
  t.equal(path.dueAt, 3000)
  path.recordProbe('tcp', 3000)
  t.equal(path.recordFallback(), false, 'a HAG without MPTCP makes every connection fall back')
})
