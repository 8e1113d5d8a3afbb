import t from 'tap'
import { keepaliveSeconds, watchKeepalive } from '../../src/gateway/wans/keepalive.js'
import { paceOf } from '../support/pace.js'

t.test('as often as NATs with a minute of memory need, and on metered WANs as is affordable', async (t) => {
  const of = (connections: number, isMetered: boolean) => keepaliveSeconds({ connections, isMetered })
  t.same(
    [0, 10, 10_000].map((connections) => of(connections, false)),
    [50, 50, 50],
  )
  t.same(
    [0, 10, 14, 20, 30, 60, 80, 10_000].map((connections) => of(connections, true)),
    [50, 50, 50, 75, 110, 220, 300, 300],
  )
  for (let connections = 0; connections < 80; connections++) {
    const month = (connections * 130 * 30 * 86_400) / of(connections, true)
    t.ok(month <= 100e6, `${connections}: ${month}`)
  }
})

t.test('follows what is relayed, unless the config says', async (t) => {
  for (const [seconds, expected] of [
    [undefined, [50, 300, 50]],
    [20, [20]],
  ] as const) {
    const end = new AbortController()
    const set: number[] = []
    const relaying = [1, 1, 500, 500, 1]
    const engine = {
      setKeepalive: (value: number) => void set.push(value),
      stats: () => ({ relaying: relaying[0] }) as never,
    }
    const isMetered = () => true
    const running = watchKeepalive({ engine, pace: paceOf(), seconds, isMetered, everyMs: 5 }, end.signal)
    for (let turn = 0; turn < 4; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 30))
      relaying.shift()
    }
    await new Promise((resolve) => setTimeout(resolve, 30))
    end.abort()
    await running
    t.same(set, expected)
  }
})
