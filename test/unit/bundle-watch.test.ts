import t from 'tap'
import { BundleWatch } from '../../src/gateway/wans/bundle-watch.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'
import { paceOf } from '../support/pace.js'

t.test('what keeps a WAN out is said once it lasts, and again after it was gone', async (t) => {
  const log = memoryLog()
  const end = new AbortController()
  const obstacle = { type: 'wan-without-hag', wan: 'lte', lacks: 4, isOutnumbered: false } as const
  const text = 'WAN lte is not in the bundle: it has no IPv4 address and gateway, and no HAG has an IPv6 one'
  const turns = [
    [obstacle],
    [obstacle],
    [],
    [obstacle],
    [obstacle],
    [obstacle],
    [obstacle],
    [],
    [obstacle],
    [obstacle],
    [obstacle],
  ]
  const watch = new BundleWatch({
    engine: { stats: () => ({ relaying: 0 }) as never, inspectBusy: async () => t.fail('nothing is relayed') as never },
    pace: paceOf(),
    members: () => [],
    isToHag: () => true,
    obstacles: () => {
      const turn = turns.shift()
      if (turns.length === 0) end.abort()
      return turn ?? []
    },
    emit: toLog(log),
    counters: () => new Map(),
    joins: () => undefined,
    everyMs: 1,
  })
  await watch.run(end.signal)
  t.same(log.lines, [`warn ${text}`, `warn ${text}`])
})
