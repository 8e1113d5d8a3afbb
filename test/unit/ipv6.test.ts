/** What HAGs are asked about IPv6, and what follows from their replies. */
import t from 'tap'
import type { Inspection } from '../../src/engine/contract.js'
import type { Reply } from '../../src/gateway/hags/capabilities.js'
import { Ipv6 } from '../../src/gateway/hags/ipv6.js'
import type { Hag } from '../../src/gateway/model.js'
import { ipv6QuestionTo } from '../../src/gateway/steering/schedule.js'
import { dsl, first, home, second } from '../support/steering.js'

const destination = { address: '2001:db8:5::2', port: 443 }

function start(
  options: {
    hags?: readonly Hag[]
    relayed?: () => string[]
    metered?: boolean
    ageMs?: number
    own?: string[]
    isReachable?: () => boolean
  } = {},
) {
  const { hags = [first], metered = false } = options
  const core = home({ wans: [{ ...dsl, address6: '2001:db8:1::2' }], hags, metered: metered ? ['dsl'] : [] })
  let reply: Reply | undefined = 'NetworkUnreachable'
  const asked: string[] = []
  let changes = 0
  const inspection = (address: string): Inspection => ({
    local: { address: '10.1.0.2', port: 1 },
    ageMs: options.ageMs ?? 5000,
    full: false,
    connection: 1,
    client: { address, port: 1 },
    remote: first,
    protocol: 'mptcp',
    sent: 1,
    received: 1,
    subflows: [],
  })
  const take = (fact: Parameters<typeof core.take>[0]) => {
    if (core.take(fact).some(({ type }) => type === 'reconcile')) changes += 1
  }
  const ipv6 = new Ipv6({
    engine: {
      connect: async () => ({ ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }),
      inspect: async () => (options.relayed?.() ?? []).map(inspection),
      stats: () => ({ connections: 1, relaying: 1, pipesInUse: 0, pipesPooled: 0, bytesParked: 0, calmMs: 0 }),
    },
    hags: () => core.target.usableHags,
    isReachable: options.isReachable ?? (() => true),
    question: (hag) => ipv6QuestionTo(core.state, hag, core.now),
    own: () => (options.own ?? []).map((address) => ({ address, port: 12345 })),
    report: take,
    ask: async (_, __, how) => {
      asked.push(how.destination.address)
      return reply
    },
  })
  const pass = async (ms: number) => {
    core.now += ms
    take({ type: 'tick' })
    await ipv6.look()
  }
  const refused = async (hag: Hag) => {
    take({ type: 'ipv6-unreachable', hag, destination })
    await ipv6.lookInto(hag)
  }
  const says = (next: Reply | undefined) => {
    reply = next
  }
  return { core, ipv6, refused, pass, says, asked, isCarried: () => core.target.isIpv6Carried, changes: () => changes }
}

t.test('two requests without a way, and none to nowhere either: it has no IPv6, until it has', async (t) => {
  for (const reply of ['NetworkUnreachable', 'AddressNotSupported', 'HostUnreachable', 'Failure'] as const) {
    const { refused, isCarried, pass, says, asked, changes } = start()
    says(reply)
    await refused(first)
    t.same([isCarried(), asked], [true, []])
    await refused(first)
    t.same([isCarried(), changes(), asked.length], [false, 1, 1])
    await pass(10_000)
    t.same([isCarried(), asked.at(-1)], [false, destination.address], 'asked for what a user wanted')
    says('ConnectionRefused')
    await pass(1000)
    t.equal(isCarried(), false, 'not all the time')
    await pass(10_000)
    t.same([isCarried(), changes()], [true, 2])
  }
})

t.test('what says that it can', async (t) => {
  const silent = start()
  silent.says(undefined)
  const relaying = start({ relayed: () => ['fd00::2'] })
  const oldIpv4 = start({ relayed: () => ['192.168.1.2'] })
  const old = start({ relayed: () => ['fd00::2'], ageMs: 600_000 })
  const two = start({ hags: [first, second] })
  for (const { refused } of [silent, relaying, oldIpv4, old, two]) {
    await refused(first)
    await refused(first)
  }
  t.equal(silent.isCarried(), true, 'a way to nowhere')
  t.equal(relaying.isCarried(), true, 'an IPv6 connection that is served')
  t.equal(oldIpv4.isCarried(), false, 'but no IPv4 one')
  t.equal(old.isCarried(), false, 'nor one from before')
  t.equal(two.isCarried(), true, 'another HAG')
  await two.refused(second)
  await two.refused(second)
  t.equal(two.isCarried(), false)
})

t.test('users try it again after a while, ever more seldom', async (t) => {
  const { refused, isCarried, pass } = start({ metered: true })
  const refuse = async () => {
    await pass(1000)
    await refused(first)
    await refused(first)
  }
  await refuse()
  for (const minutes of [5, 10, 20, 40, 60, 60]) {
    await pass(minutes * 60_000 - 1)
    t.equal(isCarried(), false)
    await pass(1)
    t.equal(isCarried(), true, `after ${minutes} minutes`)
    await refuse()
    t.equal(isCarried(), false)
  }
})

t.test('asked for our own address before anybody is redirected', async (t) => {
  const own = ['fd00:1::2', '2001:db8:77::2']
  for (const [reply, isCarried] of [
    ['NetworkUnreachable', false],
    ['AddressNotSupported', false],
    ['HostUnreachable', true],
    ['Failure', true],
    ['ConnectionRefused', true],
    ['NotAllowed', true],
    [undefined, true],
  ] as const) {
    const { isCarried: isCarriedNow, says, pass, asked } = start({ own })
    says(reply)
    await pass(0)
    t.same([isCarriedNow(), asked], [isCarried, ['2001:db8:77::2']], reply ?? 'silence')
    await pass(1000)
    t.equal(asked.length, 1, 'once')
  }
  const { isCarried, pass, says } = start({ own })
  await pass(0)
  says('ConnectionRefused')
  await pass(10_000)
  t.equal(isCarried(), true, 'until it can')

  let looks = 0
  const early = start({ own, isReachable: () => ++looks > 4 })
  await early.ipv6.begin()
  t.same([early.isCarried(), looks], [false, 5], 'over a path that is known a moment later')

  const known = { address: '2001:db8:3::3', port: 1080 }
  for (const options of [{}, { own: ['fd00:1::2'] }, { own, hags: [known] }]) {
    const { asked, pass } = start(options)
    await pass(0)
    t.same(asked, [], JSON.stringify(options))
  }
})
