/** The status as people read it. */
import t from 'tap'
import { bar, duration, renderStatus, size, verdictOn } from '../../src/cli/status-text.js'
import type { GatewayStatus, HagStatus } from '../../src/control/status.js'

const service: GatewayStatus['service'] = {
  version: '1.2.3',
  kernel: '6.12.0',
  pid: 7,
  uptime_seconds: 11_530,
  memory: { resident_bytes: 60_000_000, private_bytes: 17_300_000 },
  descriptors: { open: 40, limit: 20_000 },
  connections: { open: 43, relaying: 42, limit: 7452, limit_per_client: 5589 },
  pipes: { in_use: 1, pooled: 2, parked_bytes: 4096 },
  limits_reached: ['pipes'],
  refused: { share: 8, others: 40 },
  buffer_memory_bytes: 2 ** 28,
}
const link = (more: Partial<GatewayStatus['wans'][number]['links'][number]> = {}) => ({
  family: 4 as const,
  state: 'up' as const,
  why: '',
  for_seconds: 11_520,
  address: '10.1.0.2',
  rtt_ms: 31.2,
  min_rtt_ms: 30.1,
  mptcp: 'yes' as const,
  is_narrow: false,
  has_endpoint: true,
  ...more,
})
const wan = (name: string, more: Partial<GatewayStatus['wans'][number]> = {}) => ({
  name,
  interface: name,
  role: 'normal' as const,
  is_in_use: true,
  metered: false,
  links: [link()],
  received_per_second: 0,
  sent_per_second: 0,
  ...more,
})
const hag = (more: Partial<GatewayStatus['hags'][number]> = {}) => ({
  address: '203.0.113.3',
  port: 1080,
  state: 'up' as const,
  why: '',
  for_seconds: 11_000,
  is_first: true,
  pipelines: true,
  refused: [],
  ...more,
})
type Member = GatewayStatus['bundle']['members'][number]
const member = (name: string, more: Partial<Member> = {}): Member => ({
  wan: name,
  family: 4,
  connections: 43,
  joined: 43,
  moved_bytes: 0,
  packets_sent: 0,
  packets_sent_again: 0,
  ...more,
})
const gateway = (more: Partial<GatewayStatus> = {}): GatewayStatus => ({
  role: 'gateway',
  service,
  is_lan_redirected: true,
  on_hag_down: 'direct',
  notes: [],
  wans: [wan('dsl'), wan('lte')],
  hags: [hag()],
  bundle: { connections: 43, whole: 42, members: [member('dsl'), member('lte', { joined: 42 })] },
  paths: [],
  prepared: { kept: 4, limit: 16 },
  busiest: [],
  ...more,
})

t.test('the verdict says "bonded" only of what was seen', async (t) => {
  const down = (name: string) => wan(name, { links: [link({ state: 'down', why: 'interface lte has no carrier' })] })
  const bundle = (connections: number, whole: number, members = [member('dsl'), member('lte')]) => ({
    connections,
    whole,
    members,
  })
  const cases: [Partial<GatewayStatus>, string][] = [
    [{}, 'bonded over dsl and lte'],
    [{ bundle: bundle(0, 0) }, 'ready to bond dsl and lte; no connection is old enough to prove it'],
    [{ bundle: bundle(3, 0) }, 'not bonded: no connection uses all of dsl and lte'],
    [{ bundle: bundle(3, 0, [member('dsl'), member('lte', { lack: 'stripped' })]) }, 'not bonded over lte'],
    [{ bundle: bundle(3, 3, [member('dsl')]) }, 'not bonded: only dsl carries connections to HAGs'],
    [{ bundle: bundle(0, 0, []) }, 'not bonded: only no WAN carries connections to HAGs'],
    [{ is_lan_redirected: false }, 'the LAN is not redirected, so nothing is bonded'],
    [{ hags: [hag({ is_first: false, state: 'down' })] }, 'no HAG serves: connections go direct, not bonded'],
    [{ hags: [], on_hag_down: 'reject' }, 'no HAG serves: connections are refused'],
    [{ wans: [down('dsl'), down('lte')] }, 'no WAN works'],
  ]
  for (const [more, verdict] of cases) t.equal(verdictOn(gateway(more)), verdict)
  const starting = gateway()
  delete starting.is_lan_redirected
  t.equal(verdictOn(starting), 'the LAN is not redirected yet')
})

t.test('a gateway', async (t) => {
  const status = gateway({
    notes: ['an interface is missing'],
    wans: [
      wan('dsl', { received_per_second: 2_500_000, sent_per_second: 125_000 }),
      wan('lte', {
        role: 'backup',
        is_in_use: false,
        why_not_in_use: 'backup WAN lte is out of use: dsl carries all',
        links: [link({ for_seconds: 62, address: '10.2.0.2', rtt_ms: 71, min_rtt_ms: 70, mptcp: 'stripped' })],
        month_bytes: 3_100_000_000,
        month_limit_bytes: 50_000_000_000,
      }),
    ],
    hags: [
      hag({ reaches_ipv6: false, refused: [{ wan: 'lte', address: '10.2.0.2', why: 'not in `clients`' }] }),
      hag({ address: '2001:db8::3', state: 'down', is_first: false, why: 'no answer', for_seconds: 5 }),
    ],
    bundle: {
      connections: 43,
      whole: 42,
      members: [
        member('dsl', { moved_bytes: 600, packets_sent: 1000, packets_sent_again: 13 }),
        member('lte', { joined: 42, moved_bytes: 400, lack: 'not-tried' }),
      ],
    },
    busiest: [
      {
        client: { address: '192.168.1.20', port: 40_000 },
        remote: { address: '203.0.113.3', port: 1080 },
        protocol: 'mptcp',
        age_seconds: 5,
        sent_bytes: 100,
        received_bytes: 38_500_000,
        subflows: [
          {
            wan: 'dsl',
            local: { address: '10.1.0.2', port: 1 },
            remote: { address: '203.0.113.3', port: 1080 },
            joining: false,
            rtt_ms: 30.4,
            sent_bytes: 1,
            received_bytes: 2,
            packets_sent: 3,
            packets_sent_again: 0,
          },
        ],
      },
    ],
  })
  t.matchStrict(renderStatus(status, 200).split('\n'), [
    'gateway 1.2.3 on Linux 6.12.0, up 3 h 12 min',
    'not bonded over lte',
    'note: an interface is missing',
    '',
    /^WAN {2}state .* address .* RTT .* down .* up$/,
    /^dsl {2}up 3 h 12 min .* 10\.1\.0\.2 .* 31 ms \(min 30\) .* 20\.0 Mbit\/s ██████████ .* 1\.0 Mbit\/s ▌$/,
    /^lte {2}up 1 min 2 s .* 10\.2\.0\.2 .* 71 ms \(min 70\) .* 0\.0 Mbit\/s .* 0\.0 Mbit\/s$/,
    '     its path carries no MPTCP',
    '     backup WAN lte is out of use: dsl carries all',
    '     3.1 GB of 50.0 GB this month',
    '',
    /^HAG/,
    /^203\.0\.113\.3:1080 .* up 3 h 3 min {2}in use; does not reach IPv6; refuses WAN lte \(10\.2\.0\.2\): not in `clients`$/,
    /^\[2001:db8::3\]:1080 {2}down 5 s {6}no answer$/,
    '',
    '42 of 43 connections to HAGs older than 2 s have all WANs',
    '  dsl (IPv4): 43 of 43, 60 % of their bytes, 1.3 % sent again',
    /^ {2}lte \(IPv4\): 42 of 43, 40 % of their bytes: the kernel did not try to join it/,
    'connections 43 of 7452, prepared 4, descriptors 40 of 20000, memory 17.3 MB, in pipes 4.1 kB',
    'limits that are reached: pipes',
    'refused so far: 8 share, 40 others',
    '',
    /^client/,
    /^192\.168\.1\.20:40000 {2}5 s {2}38\.5 MB {2}100 B {2}dsl 30 ms$/,
    '',
  ])
  for (const line of renderStatus(status, 40).split('\n')) t.ok(line.length <= 40, line)
})

t.test('a HAG', async (t) => {
  const status: HagStatus = {
    role: 'hag',
    service,
    listens: { addresses: ['203.0.113.3', '::'], port: 1080, protocol: 'tcp', authentication: true },
    homes: Array.from({ length: 22 }, (_, index) => ({
      home: `home${index}`,
      connections: 22 - index,
      served: 100,
      sent_bytes: 1000,
      received_bytes: 2_000_000,
    })),
    busiest: [],
  }
  const lines = renderStatus(status, 200).split('\n')
  t.same(lines.slice(0, 2), [
    'HAG 1.2.3 on Linux 6.12.0, up 3 h 12 min',
    'listens on 203.0.113.3:1080 and [::]:1080, without MPTCP: gateways use one WAN at a time',
  ])
  t.match(lines[3], /^user/)
  t.match(lines[4], /^home0 +22 +100 +2\.0 MB +1\.0 kB$/)
  t.ok(lines.includes('and 2 more'))
})

t.test('no name makes the terminal obey', (t) => {
  const name = '\u001b]0;x\u0007\u009b2Jann\r\n'
  const status: HagStatus = {
    role: 'hag',
    service,
    listens: { addresses: ['0.0.0.0'], port: 1080, protocol: 'mptcp', authentication: true },
    homes: [{ home: name, connections: 1, served: 1, sent_bytes: 0, received_bytes: 0 }],
    busiest: [],
  }
  t.notMatch(renderStatus(status, 200).replaceAll('\n', ''), /\p{Cc}/u)
  t.match(renderStatus(status, 200), 'ann')
  t.end()
})

t.test('units', async (t) => {
  t.same([0, 0.9, 59, 60, 3600, 3661, 90_000, 200_000].map(duration), [
    '0 s',
    '0 s',
    '59 s',
    '1 min',
    '1 h',
    '1 h 1 min',
    '1 d 1 h',
    '2 d 7 h',
  ])
  t.same([0, 999, 1000, 9999, 99_949, 99_951, 999_600, 1e9, 5e15].map(size), [
    '0 B',
    '999 B',
    '1.0 kB',
    '10.0 kB',
    '99.9 kB',
    '100 kB',
    '1.0 MB',
    '1.0 GB',
    '5000 TB',
  ])
  t.same(
    [-1, 0, 0.5, 0.51, 1, 7].map((share) => bar(share).trimEnd()),
    ['', '', '█████', '█████▏', '██████████', '██████████'],
  )
})
