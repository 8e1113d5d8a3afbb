/** A gateway from its start to its end. */
import t from 'tap'
import { BondsocksError } from '../../src/base/errors.js'
import { gatewayStatus } from '../../src/control/status.js'
import { outcome, refused, start, unreachable, until, wans } from '../support/fake-gateway.js'
import { type FarSide, failure, settle } from '../support/far-side.js'

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
      'warn a note',
      'info network is set up',
      'info listening',
      'info HAG 203.0.113.3:1080 is up',
      'info the LAN is redirected',
      'info gateway runs',
      'info stopping: connections may end',
      'info network is as before',
    ],
  )
})

t.test('its status, until its end', async (t) => {
  const { stop, status, log, ended } = start()
  await until(() => log.lines.includes('info gateway runs') && log.lines.includes('info WAN lte is up: a HAG answered in 30 ms'))
  const now = gatewayStatus.parse(await status())
  t.match(now, {
    is_lan_redirected: true,
    notes: ['a note'],
    wans: [
      { name: 'dsl', is_in_use: true, metered: false, links: [{ family: 4, state: 'up', address: '10.1.0.2', rtt_ms: 30 }] },
      { name: 'lte', metered: true, links: [{ state: 'up', has_endpoint: true }] },
    ],
    hags: [{ address: '203.0.113.3', state: 'up', is_first: true, refused: [] }],
    bundle: { connections: 0, members: [{ wan: 'dsl' }, { wan: 'lte' }] },
    service: { pid: process.pid },
  })
  stop.abort()
  t.equal(await outcome(ended), undefined)
  t.equal(await status(), undefined)
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
    'no HAG takes our credentials: HAG 203.0.113.3:1080 over dsl: it asks for a user name and password: set username and password_file; ' +
      'HAG 203.0.113.3:1080 over lte: it asks for a user name and password: set username and password_file',
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

t.test('a change in the middle of the first set-up: another try follows', async (t) => {
  let tries = 0
  const busy = new BondsocksError('COMMAND_FAILED', '"ip route add" failed: Network is unreachable')
  const apply = async () => {
    if (++tries === 1) throw busy
    return { steps: [], wans, redirects: true, notes: [] }
  }
  const { stop, log, ended } = start({}, { apply })
  await until(() => log.lines.some((line) => line.includes('WAN dsl is up')))
  t.ok(log.lines.includes(`warn the network could not be set up, another try follows: ${busy.message}`))
  t.ok(log.lines.includes('info gateway runs'))
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('a machine without IPv6', async (t) => {
  const listen = ({ address }: { address: string }) =>
    address === '::' ? Object.assign(new Error('x'), { code: 'EAFNOSUPPORT' }) : undefined
  const { stop, log, ended } = start({ listen })
  await settle()
  t.ok(log.lines.includes('info listening, without IPv6: this machine has none'))
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
  engine.fastPath = undefined
  const first = engine.accept()
  const second = engine.accept({ destination: '198.51.100.66' })
  const third = engine.accept()
  await settle()
  t.same(engine.resets, [second])
  // On a busy machine they have been tried over a second path by now.
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
