import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { BondsocksError } from '../../src/base/errors.js'
import { aborted } from '../../src/base/pause.js'
import { parseGateway } from '../../src/config/load.js'
import { runGateway } from '../../src/gateway/gateway.js'
import type { NetworkOptions, NetworkPlan } from '../../src/network/state.js'
import type { WatchEvents } from '../../src/network/watch.js'
import { type FarSide, failure, fakeNative, settle } from '../support/fake-engine.js'
import { memoryLog } from '../support/memory-log.js'
import { VirtualTime } from '../support/virtual-time.js'

const time = new VirtualTime()
time.start()
t.teardown(() => time.end())

const twoWans = `  - {name: dsl, interface: dsl}
  - {name: lte, interface: lte}`
const text = (wans = twoWans) => `lan: {interfaces: [br0]}
wans:
${wans}
hags:
  - {address: 203.0.113.3}
`
const wans = [
  { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' },
  { name: 'lte', interface: 'lte', address4: '10.2.0.2' },
]

function start(
  far: FarSide = {},
  options: { more?: string; wans?: string; apply?: () => Promise<NetworkPlan>; mptcp?: string; watch?: () => Promise<void> } = {},
) {
  const { native, engines } = fakeNative(far, options.mptcp)
  const stop = new AbortController()
  const hurry = new AbortController()
  /** What happened on the machine, in order. */
  const deeds: string[] = []
  /** The WANs that each pass was to leave without an endpoint. */
  const withheld: string[] = []
  /** The WAN that each pass was to lead what is not redirected over. */
  const best: string[] = []
  const watched: WatchEvents[] = []
  const log = memoryLog()
  const network = {
    async apply(_config: unknown, { redirect = true, withoutEndpoint, best: chosen }: NetworkOptions = {}): Promise<NetworkPlan> {
      deeds.push(redirect ? 'apply' : 'apply without redirect')
      best.push(chosen?.[4] ?? '')
      withheld.push(wans.flatMap(({ name, address4 }) => (withoutEndpoint?.has(address4) ? [name] : [])).join())
      return options.apply?.() ?? { steps: [], wans, notes: ['a note'] }
    },
    async dropEndpoints() {},
    async forgetBlackHole() {},
    async remove() {
      deeds.push('remove')
    },
  }
  const guard = async () => {
    deeds.push('guard')
    return {
      async dismiss() {
        deeds.push('dismiss')
      },
    }
  }
  const watch = (events: WatchEvents, signal: AbortSignal) => {
    watched.push(events)
    return options.watch?.() ?? aborted(signal)
  }
  const fail = (error: unknown) => {
    deeds.push(`fail ${(error as Error).message}`)
    stop.abort()
  }
  const signals = { stop: stop.signal, hurry: hurry.signal, fail, dispose: () => deeds.push('dispose') }
  const config = parseGateway(`${text(options.wans)}${options.more ?? ''}`, 'g.yaml')
  const ended = runGateway(config, { native, network, guard, log, signals, watch }).then(
    () => undefined,
    (error: BondsocksError) => error,
  )
  return { engines, stop, hurry, deeds, withheld, best, watched, log, ended }
}

const until = (isSo: () => boolean) => time.until(isSo, 30_000)

/** What it ends with. */
async function outcome<Value>(ended: Promise<Value>): Promise<Value> {
  let isOver = false
  void ended.finally(() => {
    isOver = true
  })
  await until(() => isOver)
  return ended
}

const unreachable = { ok: false, stage: 'connect', failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } } as const
const silence = { code: 'ETIMEDOUT', errno: 110, syscall: 'recv' }
const refused = { ok: false, stage: 'authentication', failure: { code: 'EACCES', errno: 13, syscall: 'recv' } } as const

t.test('start, serve, stop', async (t) => {
  const { engines, stop, deeds, log, ended } = start()
  await settle()
  const engine = engines[0]
  t.same(engine?.listening, [
    { kind: 'redirect', address: '0.0.0.0', port: 12345, refuseLoops: true },
    { kind: 'redirect', address: '::', port: 12345, refuseLoops: true },
  ])
  await until(() => log.lines.includes('info gateway runs'))
  t.same(deeds, ['guard', 'apply without redirect', 'apply'])
  engine?.accept()
  await settle()
  t.equal(engine?.opens.length, 1)
  await until(
    () =>
      log.lines.includes('info WAN dsl is up: a HAG answered in 30 ms') &&
      log.lines.includes('info WAN lte is up: a HAG answered in 30 ms'),
  )
  stop.abort()
  await until(() => engine?.stopped === true)
  t.same(deeds, ['guard', 'apply without redirect', 'apply', 'apply without redirect'])
  t.equal(engine?.stopped, true)
  t.equal(engine?.closed, false, 'the connection may end')
  engine?.leave(1)
  t.equal(await outcome(ended), undefined)
  t.equal(engine?.closed, true)
  t.same(deeds, ['guard', 'apply without redirect', 'apply', 'apply without redirect', 'remove', 'dismiss', 'dispose'])
  // When which WAN answers its first probe is chance.
  t.same(log.lines.filter((line) => line.startsWith('info WAN')).sort(), [
    'info WAN dsl is up: a HAG answered in 30 ms',
    'info WAN lte is up: a HAG answered in 30 ms',
  ])
  t.same(
    log.lines.filter((line) => !line.startsWith('info WAN')),
    [
      'info listening',
      'warn a note',
      'info network is set up',
      'info HAG 203.0.113.3:1080 is up',
      'info the LAN is redirected',
      'info gateway runs',
      'info stopping: connections may end',
      'info network is as before',
    ],
  )
})

t.test('a second signal aborts what is left', async (t) => {
  const { engines, stop, hurry, log, ended } = start({}, { more: 'drain_seconds: 600\n' })
  await settle()
  engines[0]?.accept()
  await settle()
  stop.abort()
  await settle()
  hurry.abort()
  t.equal(await outcome(ended), undefined)
  t.ok(log.lines.includes('warn 1 connections aborted'))
})

t.test('drain_seconds ends the wait', async (t) => {
  const { engines, stop, ended } = start({}, { more: 'drain_seconds: 0.1\n' })
  await settle()
  engines[0]?.accept()
  await settle()
  stop.abort()
  t.equal(await outcome(ended), undefined)
  t.equal(engines[0]?.closed, true)
})

const failing: [string, FarSide, Parameters<typeof start>[1], 1 | 2, string, string[]][] = [
  [
    'port taken: the machine is not touched',
    { listen: () => Object.assign(new Error('x'), { code: 'EADDRINUSE' }) },
    {},
    1,
    "port 12345 is taken by another program: `ss -ltnp 'sport = :12345'` shows it; stop it, or choose another listen.port",
    ['dispose'],
  ],
  [
    'no MPTCP in the kernel: the machine is not touched',
    {},
    { mptcp: 'EPROTONOSUPPORT' },
    1,
    'this kernel has no MPTCP (EPROTONOSUPPORT): use Linux 6.1 or later, built with CONFIG_MPTCP',
    ['dispose'],
  ],
  [
    'network set-up fails: what was there stays',
    {},
    { apply: () => Promise.reject(new BondsocksError('NO_IPTABLES', 'iptables is missing')) },
    1,
    'iptables is missing',
    ['guard', 'apply without redirect', 'dismiss', 'dispose'],
  ],
  [
    'wrong password',
    { probe: () => refused },
    {},
    2,
    'no HAG takes our credentials: HAG 203.0.113.3:1080 over dsl: it asks for a user name and password; ' +
      'HAG 203.0.113.3:1080 over lte: it asks for a user name and password',
    ['guard', 'apply without redirect', 'remove', 'dismiss', 'dispose'],
  ],
  [
    'password file missing',
    {},
    { more: '    username: me\n    password_file: /nonexistent/secret\n' },
    2,
    'password_file /nonexistent/secret cannot be read: no such file',
    ['dispose'],
  ],
]

for (const [name, far, options, exitCode, message, deedsExpected] of failing) {
  t.test(name, async (t) => {
    const more = options?.more ?? ''
    const { engines, deeds, ended } = start(
      far,
      more.startsWith('    ') ? { more: `  - address: 203.0.113.4\n${more}` } : options,
    )
    const error = await outcome(ended)
    t.type(error, BondsocksError)
    t.equal(error?.message, message)
    t.equal(error?.exitCode, exitCode)
    t.same(deeds, deedsExpected)
    t.equal(engines[0]?.closed ?? true, true)
  })
}

t.test('no HAG and on_hag_down reject: says so and runs', async (t) => {
  const { engines, stop, deeds, log, ended } = start({ probe: () => unreachable }, { more: 'on_hag_down: reject\n' })
  await until(() => log.lines.includes('info gateway runs'))
  t.ok(
    log.lines.includes(
      'warn no HAG can be reached: connections are refused (on_hag_down): ' +
        'HAG 203.0.113.3:1080 over dsl: no answer; HAG 203.0.113.3:1080 over lte: no answer',
    ),
  )
  t.equal(deeds.at(-1), 'apply')
  engines[0]?.accept()
  await settle()
  t.notOk(
    engines[0]?.opens.some(({ way }) => way.remote.address === '198.51.100.7'),
    'nothing goes direct',
  )
  stop.abort()
  engines[0]?.leave(1)
  t.equal(await outcome(ended), undefined)
})

t.test('a change in the middle of the first set-up: another try follows', async (t) => {
  let tries = 0
  const busy = new BondsocksError('COMMAND_FAILED', '"ip route add" failed: Network is unreachable')
  const apply = async () => {
    if (++tries === 1) throw busy
    return { steps: [], wans, notes: [] }
  }
  const { stop, log, ended } = start({}, { apply })
  await until(() => log.lines.some((line) => line.includes('WAN dsl is up')))
  t.ok(log.lines.includes(`warn the network could not be set up, another try follows: ${busy.message}`))
  t.ok(log.lines.includes('info gateway runs'))
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('while connections drain, what works stays where it is', async (t) => {
  const { engines, stop, log, withheld, best, watched, ended } = start({
    probe: ({ bind = '' }) =>
      bind === '10.1.0.2' ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 9 },
  })
  await until(() => log.lines.includes('info gateway runs') && best.at(-1) === 'lte' && withheld.at(-1) === 'dsl')
  engines[0]?.accept()
  await settle()
  const before = best.length
  stop.abort()
  await until(() => best.length > before)
  t.same([best.at(-1), withheld.at(-1)], ['lte', 'dsl'])
  t.equal(watched.length, 1)
  engines[0]?.leave(1)
  t.equal(await outcome(ended), undefined)
})

t.test('no HAG and on_hag_down direct: says so once and runs', async (t) => {
  const { engines, stop, log, ended } = start({
    probe: () => unreachable,
  })
  await until(() => log.lines.includes('info gateway runs'))
  t.equal(log.lines.filter((line) => line.startsWith('warn no HAG can be reached: connections go direct')).length, 1)
  engines[0]?.accept()
  await settle()
  t.equal(engines[0]?.opens[0]?.way.remote.address, '198.51.100.7')
  engines[0]?.leave(1)
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('no HAG answers any more: connections go around it over the first WAN, whatever the other one is', async (t) => {
  const greets = (code: string) => ({ ...refused, stage: 'greeting', failure: { ...silence, code }, connectMs: 0 }) as const
  const kinds = {
    'takes connections and says nothing': greets('ETIMEDOUT'),
    'resets what it takes': greets('ECONNRESET'),
    babbles: greets('EPROTO'),
    'takes no connections': unreachable,
  }
  for (const [what, trouble] of Object.entries(kinds)) {
    let isDead = false
    const { engines, stop, log, ended } = start({
      probe({ bind = '' }) {
        const connectMs = bind === '10.1.0.2' ? 60 : 40
        if (!isDead) return { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs }
        return 'connectMs' in trouble ? { ...trouble, connectMs } : trouble
      },
    })
    await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
    isDead = true
    await until(() => log.lines.some((line) => /HAG \S+ is down/.test(line)))
    // Where nothing answers, the first WAN falls too: it is asked every second, the other one is not.
    if (trouble === unreachable) await until(() => log.lines.some((line) => /WAN dsl is down/.test(line)))
    const [engine] = engines
    engine?.accept()
    await settle()
    t.match(engine?.opens.at(-1)?.way, { remote: { address: '198.51.100.7' }, bind: '10.1.0.2' }, what)
    engine?.leave(1)
    stop.abort()
    t.equal(await outcome(ended), undefined)
  }
})

t.test('no HAG answers over any WAN: what is not redirected follows the connections that are answered', async (t) => {
  let isDead = false
  const answer = ({ bind }: { bind?: string }) => (isDead && bind === '10.1.0.2' ? ('silence' as const) : ('opened' as const))
  const { engines, stop, log, best, ended } = start({
    probe: ({ bind = '' }) =>
      isDead ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 9 },
    answer,
  })
  await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
  isDead = true
  await until(
    () => log.lines.some((line) => /WAN dsl is down/.test(line)) && log.lines.some((line) => /HAG \S+ is down/.test(line)),
  )
  t.equal(best.at(-1), 'dsl')
  for (let client = 1; client <= 5; client++) {
    engines[0]?.accept()
    await until(() => (engines[0]?.stats().relaying ?? 0) >= client)
  }
  await until(() => best.at(-1) === 'lte')
  t.equal(best.at(-1), 'lte')
  isDead = false
  await until(() => best.at(-1) === 'dsl')
  t.equal(best.at(-1), 'dsl', 'and back, once a HAG answers over it')
  stop.abort()
  for (let client = 1; client <= 5; client++) engines[0]?.leave(client)
  t.equal(await outcome(ended), undefined)
})

t.test('a WAN whose link is back gets its endpoint once it is found to work, and not before', async (t) => {
  let isLost = false
  let isLinkDown = false
  const { stop, log, withheld, watched, ended } = start(
    {
      probe: ({ bind = '' }) =>
        isLost && bind === '10.2.0.2'
          ? unreachable
          : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 9 },
    },
    { apply: async () => ({ steps: [], wans: isLinkDown ? wans.slice(0, 1) : wans, notes: [] }) },
  )
  await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
  isLinkDown = true
  isLost = true
  watched[0]?.onGone('lte', 'has no carrier')
  await until(() => log.lines.some((line) => /WAN lte is down/.test(line)))
  isLinkDown = false
  const before = withheld.length
  watched[0]?.onChange()
  await until(() => log.lines.some((line) => /WAN lte is (probing|down: no HAG)/.test(line)) && withheld.length > before)
  t.same(new Set(withheld.slice(before)), new Set(['lte']))
  isLost = false
  await until(() => withheld.at(-1) === '')
  t.equal(withheld.at(-1), '')
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('a firewall prohibits the way to the HAG (ICMPv6): that says nothing of our credentials', async (t) => {
  const failure = { code: 'EACCES', errno: 13, syscall: 'connect' }
  const { stop, log, ended } = start({ probe: () => ({ ok: false, stage: 'connect', failure }) })
  await until(() => log.lines.includes('info gateway runs'))
  t.match(
    log.lines.find((line) => line.includes('no HAG can be reached')),
    /^warn .*connections go direct, without bonding: HAG 203\.0\.113\.3:1080 over dsl: a firewall prohibits it; /,
  )
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('no HAG answers any more: what costs the most is the last way around it, wherever it stands', async (t) => {
  const dear = [
    '{name: lte, interface: lte, role: overflow}',
    '{name: lte, interface: lte, role: backup}',
    '{name: lte, interface: lte, monthly_gb: 0.001}',
  ]
  const folder = t.testdir()
  for (const [index, lte] of dear.entries()) {
    const file = join(folder, `volume${index}.json`)
    const now = new Date()
    const month = `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, '0')}`
    writeFileSync(file, JSON.stringify({ [month]: { lte: 2e6 } }))
    let isDead = false
    const { engines, stop, log, ended } = start(
      {
        probe: ({ bind = '' }) =>
          isDead ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 20 },
      },
      { wans: `  - ${lte}\n  - {name: dsl, interface: dsl}`, more: `volume_file: ${file}\n` },
    )
    await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
    isDead = true
    await until(
      () => log.lines.some((line) => /WAN dsl is down/.test(line)) && log.lines.some((line) => /HAG \S+ is down/.test(line)),
    )
    // The one that is not in use is asked seldom; its silence is the same.
    const [engine] = engines
    engine?.accept()
    await settle()
    t.match(engine?.opens.at(-1)?.way, { remote: { address: '198.51.100.7' }, bind: '10.1.0.2' }, lte)
    engine?.leave(1)
    stop.abort()
    t.equal(await outcome(ended), undefined)
  }
})

t.test('one WAN on which the HAG answers is enough', async (t) => {
  const { stop, log, ended } = start(
    {
      probe: ({ bind = '' }) =>
        bind === '10.1.0.2' ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'tcp', connectMs: 1 },
    },
    { more: 'on_hag_down: reject\n' },
  )
  const stripped = 'warn WAN lte carries no MPTCP, something on its path removes it: what begins there is not bonded'
  await until(() => log.lines.includes(stripped))
  t.ok(log.lines.includes('info HAG 203.0.113.3:1080 is up'))
  t.ok(log.lines.includes(stripped))
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('a machine without IPv6', async (t) => {
  const listen = ({ address }: { address: string }) =>
    address === '::' ? Object.assign(new Error('x'), { code: 'EAFNOSUPPORT' }) : undefined
  const { stop, log, ended } = start({ listen })
  await settle()
  t.equal(log.lines[0], 'info listening, without IPv6: this machine has none')
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('a signal during the set-up undoes it', async (t) => {
  const { stop, deeds, ended } = start({ probe: () => unreachable })
  stop.abort()
  t.equal(await outcome(ended), undefined)
  t.equal(deeds.at(-1), 'dispose')
  t.equal(deeds.includes('apply without redirect'), deeds.includes('remove'))
})

t.test('an error in one event ends its connection, and no other', async (t) => {
  const tried = new Set<string>()
  const answer = ({ remote, socks }: { remote: { address: string }; socks?: { host: string } }) => {
    const host = socks?.host ?? remote.address
    if (host !== '198.51.100.66') return 'silence' as const
    if (tried.has(host)) throw new Error('a fault of ours')
    tried.add(host)
    return failure('connect', 'ETIMEDOUT')
  }
  const { engines, stop, log, ended } = start({ answer }, { more: 'log_level: debug\n' })
  await settle()
  const [engine] = engines
  if (engine === undefined) throw new Error('no engine')
  engine.setFastPath = () => {}
  engine.order = undefined
  const first = engine.accept()
  const second = engine.accept({ destination: '198.51.100.66' })
  const third = engine.accept()
  await settle()
  t.same(engine.resets, [second])
  // On a busy machine they have been tried a second way by now.
  t.same(new Set(engine.opens.map(({ connection }) => connection).filter((one) => one !== second)), new Set([first, third]))
  t.ok(log.lines.some((line) => /error unexpected error, its connection is reset: a fault of ours/.test(line)))
  stop.abort()
  engine.leave(first)
  engine.leave(third)
  t.equal(await outcome(ended), undefined)
})

t.test('a part of the gateway that fails ends all of it, with the network as before', async (t) => {
  const { deeds, ended } = start({}, { watch: async () => Promise.reject(new Error('a fault of ours')) })
  await outcome(ended)
  t.same(
    deeds.filter((deed) => deed !== 'apply'),
    ['guard', 'apply without redirect', 'fail a fault of ours', 'apply without redirect', 'remove', 'dismiss', 'dispose'],
  )
})
