/** What is said of the bundle, from what the engine, the interfaces and the kernel's counters tell. */
import t from 'tap'
import type { Inspection } from '../../src/engine/contract.js'
import { Bundle, type BundleFacts, type BundleMember, type Joins, withoutHag } from '../../src/gateway/wans/bundle.js'
import { parseJoins } from '../../src/gateway/wans/bundle-watch.js'
import { lineOf } from '../../src/telemetry/events.js'

const hag = { address: '203.0.113.3', port: 1080 }
const dsl: BundleMember = { wan: 'dsl', family: 4, bind: '10.1.0.2', device: 'dsl0' }
const lte: BundleMember = { wan: 'lte', family: 4, bind: '10.2.0.2', device: 'lte0' }

function connection(
  number: number,
  subflows: readonly { bind: string; bytes?: number; joining?: boolean }[],
  rest: object = {},
): Inspection {
  const local = { address: '10.1.0.2', port: 40_000 + number }
  return {
    connection: number,
    client: local,
    local,
    remote: hag,
    protocol: 'mptcp' as const,
    ageMs: 9000,
    full: false,
    sent: 0,
    received: 0,
    subflows: subflows.map(({ bind, bytes = 0, joining = false }) => ({
      local: { address: bind, port: local.port },
      remote: hag,
      bytesSent: 0,
      bytesReceived: bytes,
      rttUs: 30_000,
      unackedPackets: 0,
      lastAckMs: 10,
      timeouts: 0,
      joining,
      packetsSent: 0,
      packetsSentAgain: 0,
    })),
    ...rest,
  }
}

const joins = (tried: number | undefined, answered = 0, reset = 0): Joins => ({ tried, answered, reset })

const goodOrBad = ({ level, text }: ReturnType<typeof lineOf>) => `${level === 'warn' ? 'bad' : 'good'}: ${text}`

/** Looks at the same thing so many times, five seconds apart; what was said. */
function watcher() {
  const bundle = new Bundle()
  let now = 0
  return {
    bundle,
    look(facts: Partial<BundleFacts>, times = 1): string[] {
      return Array.from({ length: times }, () => {
        now += 5000
        const all = { connections: [], members: [dsl, lte], carried: new Map(), joins: joins(0), ...facts }
        return bundle.look(all, now).map((event) => goodOrBad(lineOf(event)))
      }).flat()
    },
  }
}

const both = [connection(1, [{ bind: dsl.bind }, { bind: lte.bind }]), connection(2, [{ bind: dsl.bind }, { bind: lte.bind }])]
const lone = [connection(3, [{ bind: dsl.bind }]), connection(4, [{ bind: dsl.bind }])]

t.test('a WAN that connections do not use is said once, after more than a moment, and so is its return', async (t) => {
  const { bundle, look } = watcher()
  t.same(look({ connections: both }, 5), [])
  t.same(
    bundle.states.map(({ wan, connections, joined, lack }) => [wan, connections, joined, lack]),
    [
      ['dsl', 2, 2, undefined],
      ['lte', 2, 2, undefined],
    ],
  )
  t.same(look({ connections: lone }, 2), [], 'two looks are a moment')
  t.same(look({ connections: both }), [])
  t.same(look({ connections: lone }, 2), [])
  t.match(look({ connections: lone }, 20), [
    /^bad: WAN lte is not in the bundle: 0 of 2 connections use it; the kernel did not try/,
  ])
  t.match(bundle.states[1], { wan: 'lte', lack: 'not-tried', joined: 0 })
  t.same(look({}, 10), [], 'without connections nothing is known')
  t.match(bundle.states[1], { lack: 'not-tried' }, 'what was known is kept')
  t.same(look({ connections: both }, 20), ['good: WAN lte is in the bundle again: 2 of 2 connections use it'])
})

t.test('less than half of the connections without it say nothing, and a WAN that is no member either', async (t) => {
  const { look } = watcher()
  t.same(look({ connections: [...both, ...lone, connection(5, [{ bind: dsl.bind }, { bind: lte.bind }])] }, 10), [])
  t.same(look({ connections: lone, members: [dsl] }, 10), [])
})

t.test('the cause, as far as it is known', async (t) => {
  const none = joins(0)
  // They begin between the first look and the second one.
  const young = lone.map((one) => ({ ...one, ageMs: 4000 }))
  const cases: [cause: RegExp, connections: Inspection[], joins?: (Joins | undefined)[]][] = [
    [/gets no answer/, [connection(1, [{ bind: dsl.bind }, { bind: lte.bind, joining: true }])]],
    [/limit of subflows is reached/, [connection(1, [{ bind: dsl.bind }], { full: true })]],
    [/they became plain TCP/, [connection(1, [], { protocol: 'tcp' })]],
    [/does not tell why/, young, [undefined]],
    [/does not tell why/, [connection(1, [{ bind: dsl.bind }], { ageMs: 60_000 })], [none, joins(2)]],
    [/is refused: something on its path resets it/, young, [none, joins(2)]],
    [/without MPTCP: something on its path removes the option MP_JOIN/, young, [none, joins(2, 0, 2)]],
    [/answered, and closed at once: the HAG lets no more join/, young, [none, joins(2, 2, 2)]],
    // Other connections have joined another WAN meanwhile.
    [/is refused/, young, [none, joins(9, 7)]],
    [/removes the option MP_JOIN/, young, [none, joins(9, 7, 2)]],
    // Before Linux 6.12.
    [/does not tell why/, young, [joins(undefined)]],
    [/removes the option MP_JOIN/, young, [joins(undefined), joins(undefined, 0, 2)]],
    [/closed at once/, young, [joins(undefined), joins(undefined, 2, 2)]],
    [/did not try/, young, [joins(1)]],
  ]
  for (const [cause, connections, counted = [none]] of cases) {
    const { look } = watcher()
    const said = [0, 1, 2, 3].flatMap((turn) =>
      look({
        connections: turn === 0 ? [] : connections.map((one) => ({ ...one, ageMs: one.ageMs + (turn - 1) * 5000 })),
        joins: counted[Math.min(turn, counted.length - 1)],
      }),
    )
    t.equal(said.length, 1, cause.source)
    t.match(said[0], cause)
    t.match(said[0], /^bad: WAN lte is not in the bundle: 0 of \d connections use it/)
  }
})

t.test('what was tried before the connections began is not their joins', async (t) => {
  const { look } = watcher()
  t.same(
    [joins(0), joins(2)].flatMap((counted) => look({ joins: counted })),
    [],
  )
  const young = lone.map((one) => ({ ...one, ageMs: 4000 }))
  t.match(look({ connections: young, joins: joins(2) }, 4), [/did not try/])
})

t.test('one that comes and goes is a line a minute at most', async (t) => {
  const { look } = watcher()
  const lines = Array.from({ length: 12 }, () => [...look({ connections: lone }, 3), ...look({ connections: both }, 3)]).flat()
  // Six minutes.
  t.ok(lines.length >= 2 && lines.length <= 7, `${lines.length} lines`)
})

t.test('what leaves by another interface than its own', async (t) => {
  const { look } = watcher()
  let bytes = 0
  const turn = (lteSees: number) => {
    bytes += 1_000_000
    const carried = new Map([
      ['dsl0', { received: 2 * bytes, sent: 0 }],
      ['lte0', { received: lteSees * bytes, sent: 0 }],
    ])
    return look({
      carried,
      connections: [
        connection(1, [
          { bind: dsl.bind, bytes },
          { bind: lte.bind, bytes },
        ]),
      ],
    })
  }
  t.same(
    [1, 2, 3, 4, 5].flatMap(() => turn(1)),
    [],
  )
  const said = [1, 2, 3, 4, 5].flatMap(() => turn(0))
  t.equal(said.length, 1)
  t.match(
    said[0],
    /^bad: WAN lte carries nothing by lte0: what is sent from 10\.2\.0\.2 leaves by another interface; .*ip route get HAG from 10\.2\.0\.2 oif lte0/,
  )
})

t.test('each family has its own bundle, and is named where there are two', async (t) => {
  const { look } = watcher()
  const six: BundleMember[] = [
    { ...dsl, family: 6, bind: '2001:db8:1::2' },
    { ...lte, family: 6, bind: '2001:db8:2::2' },
  ]
  const remote = { address: '2001:db8:3::3', port: 1080 }
  const connections = [...both, connection(9, [{ bind: '2001:db8:1::2' }], { remote })]
  t.match(look({ members: [dsl, lte, ...six], connections }, 5), [/^bad: WAN lte \(IPv6\) is not in the bundle: 0 of 1 /])
})

t.test('reads the counters of joins, as far as the kernel has them', async (t) => {
  const all = 'MPTcpExt: MPJoinSynRx MPJoinSynAckRx MPJoinSynTx MPRstTx\nMPTcpExt: 4 5 6 7\n'
  t.same(parseJoins(`TcpExt: A\nTcpExt: 1\n${all}`), joins(6, 5, 7))
  t.same(parseJoins('MPTcpExt: MPJoinSynAckRx MPRstTx\nMPTcpExt: 5 7\n'), joins(undefined, 5, 7))
  t.equal(parseJoins(''), undefined)
})

t.test('a WAN that no HAG address can use', async (t) => {
  const both = { name: 'dsl', interface: 'dsl', address4: '10.1.0.2', address6: '2001:db8::2' }
  const four = { name: 'lte', interface: 'lte', address4: '10.2.0.2' }
  const six = { name: 'cable', interface: 'cable', address6: '2001:db8:3::2' }
  const none = { name: 'off', interface: 'off' }
  const said = (...all: Parameters<typeof withoutHag>) => withoutHag(...all).map((event) => lineOf(event).text)
  const wans = [both, four, six, none]
  t.same(said(wans, [4]), ['WAN cable is not in the bundle: it has no IPv4 address and gateway, and no HAG has an IPv6 one'])
  t.same(said(wans, [6]), ['WAN lte is not in the bundle: it has no IPv6 address and gateway, and no HAG has an IPv4 one'])
  t.same(said(wans, [4, 6]), [
    'WAN cable is not in the bundle: it has no IPv4 address and gateway, and more WANs have IPv4 than IPv6',
  ])
  t.same(said([both, none], [4, 6]), [])
  t.same(said(wans, []), [], 'nothing is known of HAGs yet')
})
