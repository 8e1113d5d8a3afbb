import t from 'tap'
import { newsOfOptions, watchOptions } from '../../src/service/refused-options.js'
import type { OptionEffect } from '../../src/telemetry/events/service.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'

t.test('says once what somebody would feel, and nothing of the rest', async (t) => {
  const told = new Set<OptionEffect>()
  const refused = [
    { option: 'TCP_NOTSENT_LOWAT', code: 'ENOPROTOOPT', count: 3 },
    { option: 'TCP_KEEPIDLE', code: 'EOPNOTSUPP', count: 900 },
    { option: 'SO_KEEPALIVE', code: 'EOPNOTSUPP', count: 900 },
  ]
  t.same(newsOfOptions(refused, told), [
    { type: 'option-refused', option: 'TCP_KEEPIDLE', code: 'EOPNOTSUPP', effect: 'idle-dies' },
  ])
  t.same(newsOfOptions(refused, told), [])
  t.match(newsOfOptions([{ option: 'SO_RCVBUFFORCE', code: 'EPERM', count: 1 }], told), [{ option: 'SO_RCVBUFFORCE' }])
})

t.test('looks until the signal', async (t) => {
  const log = memoryLog()
  const end = new AbortController()
  let looks = 0
  const refusedOptions = () => {
    if (++looks === 2) end.abort()
    return [{ option: 'IP_BIND_ADDRESS_NO_PORT', code: 'EOPNOTSUPP', count: looks }]
  }
  await watchOptions({ refusedOptions }, toLog(log), end.signal, 1)
  t.equal(log.lines.length, 1)
  t.match(log.lines[0], /^info .*IP_BIND_ADDRESS_NO_PORT .* as net\.ipv4\.ip_local_port_range has ports/)
})
