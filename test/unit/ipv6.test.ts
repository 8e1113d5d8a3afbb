import t from 'tap'
import type { Inspection } from '../../src/engine/contract.js'
import type { Reply } from '../../src/gateway/hags/capabilities.js'
import { Ipv6 } from '../../src/gateway/hags/ipv6.js'
import { memoryLog } from '../support/memory-log.js'

const hag = { address: '203.0.113.3', port: 1080 }
const other = { address: '203.0.113.4', port: 1080 }
const destination = { address: '2001:db8:5::2', port: 443 }

function start(
  options: {
    hags?: (typeof hag)[]
    relayed?: () => string[]
    metered?: boolean
    ageMs?: number
    own?: string[]
    isPathKnown?: () => boolean
  } = {},
) {
  let now = 0
  let reply: Reply | undefined = 'NetworkUnreachable'
  const asked: string[] = []
  let changes = 0
  const inspection = (address: string): Inspection => ({
    local: { address: '10.1.0.2', port: 1 },
    ageMs: options.ageMs ?? 5000,
    full: false,
    connection: 1,
    client: { address, port: 1 },
    remote: hag,
    protocol: 'mptcp',
    sent: 1,
    received: 1,
    subflows: [],
  })
  const ipv6 = new Ipv6({
    engine: {
      connect: async () => ({ ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }),
      inspect: async () => (options.relayed?.() ?? []).map(inspection),
      stats: () => ({ connections: 1, relaying: 1, pipesInUse: 0, pipesPooled: 0, bytesParked: 0 }),
    },
    hags: () => options.hags ?? [hag],
    pathTo: () => (options.isPathKnown?.() === false ? undefined : { bind: '10.1.0.2', metered: options.metered ?? false }),
    own: () => (options.own ?? []).map((address) => ({ address, port: 12345 })),
    log: memoryLog(),
    onChange: () => {
      changes += 1
    },
    ask: async (_, __, how) => {
      asked.push(how.destination.address)
      return reply
    },
    now: () => now,
  })
  const pass = async (ms: number) => {
    now += ms
    await ipv6.look()
  }
  const says = (next: Reply | undefined) => {
    reply = next
  }
  return { ipv6, pass, says, asked, changes: () => changes }
}

t.test('two requests without a way, and none to nowhere either: it has no IPv6, until it has', async (t) => {
  for (const reply of ['NetworkUnreachable', 'AddressNotSupported', 'HostUnreachable', 'Failure'] as const) {
    const { ipv6, pass, says, asked, changes } = start()
    says(reply)
    await ipv6.refused(hag, destination)
    t.same([ipv6.isCarried, asked], [true, []])
    await ipv6.refused(hag, destination)
    t.same([ipv6.isCarried, changes(), asked.length], [false, 1, 1])
    await pass(10_000)
    t.same([ipv6.isCarried, asked.at(-1)], [false, destination.address], 'asked for what a user wanted')
    says('ConnectionRefused')
    await pass(1000)
    t.equal(ipv6.isCarried, false, 'not all the time')
    await pass(10_000)
    t.same([ipv6.isCarried, changes()], [true, 2])
  }
})

t.test('what says that it can', async (t) => {
  const silent = start()
  silent.says(undefined)
  const relaying = start({ relayed: () => ['fd00::2'] })
  const oldIpv4 = start({ relayed: () => ['192.168.1.2'] })
  const old = start({ relayed: () => ['fd00::2'], ageMs: 600_000 })
  const two = start({ hags: [hag, other] })
  for (const { ipv6 } of [silent, relaying, oldIpv4, old, two]) {
    await ipv6.refused(hag, destination)
    await ipv6.refused(hag, destination)
  }
  t.equal(silent.ipv6.isCarried, true, 'a way to nowhere')
  t.equal(relaying.ipv6.isCarried, true, 'an IPv6 connection that is served')
  t.equal(oldIpv4.ipv6.isCarried, false, 'but no IPv4 one')
  t.equal(old.ipv6.isCarried, false, 'nor one from before')
  t.equal(two.ipv6.isCarried, true, 'another HAG')
  await two.ipv6.refused(other, destination)
  await two.ipv6.refused(other, destination)
  t.equal(two.ipv6.isCarried, false)
})

t.test('users try it again after a while, ever more seldom', async (t) => {
  const { ipv6, pass } = start({ metered: true })
  const refuse = async () => {
    await pass(1000)
    await ipv6.refused(hag, destination)
    await ipv6.refused(hag, destination)
  }
  await refuse()
  for (const minutes of [5, 10, 20, 40, 60, 60]) {
    await pass(minutes * 60_000 - 1)
    t.equal(ipv6.isCarried, false)
    await pass(1)
    t.equal(ipv6.isCarried, true, `after ${minutes} minutes`)
    await refuse()
    t.equal(ipv6.isCarried, false)
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
    const { ipv6, says, pass, asked } = start({ own })
    says(reply)
    await pass(0)
    t.same([ipv6.isCarried, asked], [isCarried, ['2001:db8:77::2']], reply ?? 'silence')
    await pass(1000)
    t.equal(asked.length, 1, 'once')
  }
  const { ipv6, pass, says } = start({ own })
  await pass(0)
  says('ConnectionRefused')
  await pass(10_000)
  t.equal(ipv6.isCarried, true, 'until it can')

  let looks = 0
  const early = start({ own, isPathKnown: () => ++looks > 4 })
  await early.ipv6.begin()
  t.equal(early.ipv6.isCarried, false, 'over a path that is known a moment later')

  const known = { address: '2001:db8:3::3', port: 1080 }
  for (const options of [{}, { own: ['fd00:1::2'] }, { own, hags: [known] }]) {
    const { asked, pass } = start(options)
    await pass(0)
    t.same(asked, [], JSON.stringify(options))
  }
})
