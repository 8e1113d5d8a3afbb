import t from 'tap'
import { newsOfOptions, watchOptions } from '../../src/service/refused-options.js'
import { memoryLog } from '../support/memory-log.js'

t.test('says once what somebody would feel, and nothing of the rest', async (t) => {
  const told = new Set<string>()
  const refused = [
    { option: 'TCP_NOTSENT_LOWAT', code: 'ENOPROTOOPT', count: 3 },
    { option: 'TCP_KEEPIDLE', code: 'EOPNOTSUPP', count: 900 },
    { option: 'SO_KEEPALIVE', code: 'EOPNOTSUPP', count: 900 },
  ]
  t.same(newsOfOptions(refused, told), [
    'the socket option TCP_KEEPIDLE is not taken by this kernel (EOPNOTSUPP): what idles behind a NAT may die unnoticed',
  ])
  t.same(newsOfOptions(refused, told), [])
  t.match(newsOfOptions([{ option: 'SO_RCVBUFFORCE', code: 'EPERM', count: 1 }], told), [/SO_RCVBUFFORCE needs CAP_NET_ADMIN: /])
})

t.test('looks until the signal', async (t) => {
  const log = memoryLog()
  const end = new AbortController()
  let looks = 0
  const refusedOptions = () => {
    if (++looks === 2) end.abort()
    return [{ option: 'IP_BIND_ADDRESS_NO_PORT', code: 'EOPNOTSUPP', count: looks }]
  }
  await watchOptions({ refusedOptions }, log, end.signal, 1)
  t.equal(log.lines.length, 1)
  t.match(log.lines[0], /^info .*IP_BIND_ADDRESS_NO_PORT .* as net\.ipv4\.ip_local_port_range has ports/)
})
