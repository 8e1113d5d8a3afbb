import t from 'tap'
import { MptcpPath } from '../../src/gateway/wans/mptcp-support.js'

const minute = 60_000

t.test('a clean path is asked seldom, one with a fault soon, unless it costs money', async (t) => {
  for (const metered of [false, true]) {
    const path = new MptcpPath(metered)
    t.equal(path.dueAt, 0)
    t.equal(path.learn('mptcp', 1000), false, 'no news')
    t.equal(path.dueAt, 1000 + 15 * minute)
    t.equal(path.learn('blocked', 2000), true)
    t.match(path, { protocol: 'tcp', isPoor: true, dueAt: 2000 + (metered ? 15 * minute : 10_000) })
    t.equal(path.learn('tcp', 3000), true)
    t.match(path, { protocol: 'mptcp', isPoor: true })
    t.equal(path.learn(undefined, 4000), false)
    t.equal(path.learn('mptcp', 5000), true)
    t.match(path, { protocol: 'mptcp', isPoor: false })
  }
})

t.test('doubt leads to a question every two seconds at most', async (t) => {
  const path = new MptcpPath(false)
  t.equal(path.doubt(), false, 'where it is due anyway')
  path.learn('mptcp', 1000)
  t.equal(path.doubt(), true)
  t.equal(path.dueAt, 3000)
  path.learn('tcp', 3000)
  t.equal(path.doubt(), false, 'a HAG without MPTCP makes every connection fall back')
})
