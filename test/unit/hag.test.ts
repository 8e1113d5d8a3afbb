import t from 'tap'
import { parseHag } from '../../src/config/load.js'
import type { Commands } from '../../src/control/open.js'
import { hagStatus } from '../../src/control/status.js'
import { runHag } from '../../src/hag/hag.js'
import { EventFeed } from '../../src/telemetry/feed.js'
import { fakeNative } from '../support/fake-native.js'
import { type FarSide, settle } from '../support/far-side.js'
import { memoryLog } from '../support/memory-log.js'

function start(far: FarSide = {}, more = '', mptcp?: string, address = '203.0.113.3') {
  const { native, engines } = fakeNative(far, mptcp)
  const stop = new AbortController()
  const log = memoryLog()
  const signals = { stop: stop.signal, hurry: new AbortController().signal, dispose: () => undefined }
  const config = parseHag(`listen: {address: ${address}}\nclients: [10.0.0.0/8]\n${more}`, 'h.yaml')
  let commands: Commands = {}
  const openControl = async (_options: unknown, given: Commands) => {
    commands = given
    return { close: () => undefined }
  }
  const ended = runHag(config, {
    native,
    openControl,
    events: new EventFeed(log),
    log,
    signals,
    keepNetwork: async () => undefined,
  }).then(
    () => undefined,
    (error: Error) => error,
  )
  return { engines, stop, log, ended, status: () => commands.status?.() }
}

t.test('listens, serves, stops', async (t) => {
  const { engines, stop, log, ended } = start()
  await settle()
  const engine = engines[0]
  t.same(engine?.listening, [
    { kind: 'socks', address: '203.0.113.3', port: 1080, authentication: false, clients: [{ address: '10.0.0.0', bits: 8 }] },
  ])
  engine?.request('198.51.100.7')
  engine?.request('127.0.0.1')
  await settle()
  t.equal(engine?.opens.length, 1)
  t.match(engine?.refusals, [{ connection: 2, reply: 2 }])
  stop.abort()
  await settle()
  t.equal(engine?.stopped, true)
  engine?.leave(1)
  t.equal(await ended, undefined)
  t.equal(engine?.closed, true)
  t.same(log.lines, ['info HAG listens', 'info stopping: connections may end', 'info stopped'])
})

t.test('a users_file that is not there', async (t) => {
  const { engines, ended } = start({}, 'users_file: /nonexistent/users\n')
  t.match(await ended, { message: 'users_file /nonexistent/users cannot be read: no such file', exitCode: 2 })
  t.same(engines, [])
})

t.test('what listening may fail with', async (t) => {
  for (const [code, message] of [
    ['EADDRINUSE', /^port 1080 is taken by another program/],
    [
      'EADDRNOTAVAIL',
      /^203\.0\.113\.3 is no address of this machine: choose another listen\.address \(0\.0\.0\.0 and '::' are all\)$/,
    ],
    ['EACCES', /^port 1080 is not allowed: run as root, or choose a listen\.port above 1023$/],
    ['ENOBUFS', /^cannot listen on 203\.0\.113\.3 port 1080: ENOBUFS$/],
  ] as const) {
    const { engines, ended } = start({ listen: () => Object.assign(new Error('x'), { code }) })
    t.match(await ended, { message, exitCode: 1 })
    t.equal(engines[0]?.closed, true)
  }
})

t.test('where it listens', async (t) => {
  const fails = (address: string, code: string) => (options: { address: string }) =>
    options.address === address ? Object.assign(new Error('x'), { code }) : undefined
  for (const [written, expected, listen] of [
    ["'::'", ['::', '0.0.0.0'], undefined],
    ["['::']", ['::', '0.0.0.0'], undefined],
    ["['::', 203.0.113.3]", ['::', '203.0.113.3'], undefined],
    ["[203.0.113.3, '2001:DB8::3', 203.0.113.3]", ['203.0.113.3', '2001:db8::3'], undefined],
    // The other family's port is another HAG's, as it had to be before; and no IPv6 here.
    ["'::'", ['::'], fails('0.0.0.0', 'EADDRINUSE')],
    ["'::'", ['0.0.0.0'], fails('::', 'EAFNOSUPPORT')],
  ] as const) {
    const { engines, stop, ended } = start(listen === undefined ? {} : { listen }, '', undefined, written)
    await settle()
    t.same(
      engines[0]?.listening.map(({ address }) => address),
      expected,
      written,
    )
    stop.abort()
    t.equal(await ended, undefined)
  }
  const { ended } = start({ listen: fails('203.0.113.4', 'EADDRINUSE') }, '', undefined, '[203.0.113.3, 203.0.113.4]')
  t.match(await ended, { message: /^port 1080 is taken/ }, 'each of a list must do')
})

t.test('its status', async (t) => {
  const { engines, stop, status, ended } = start()
  await settle()
  const engine = engines[0]
  engine?.request('198.51.100.7')
  engine?.request('198.51.100.8')
  engine?.request('198.51.100.9')
  await settle()
  engine?.leave(1)
  await settle()
  const now = hagStatus.parse(await status())
  t.match(now, {
    listens: { addresses: ['203.0.113.3'], port: 1080, protocol: 'mptcp', authentication: false },
    homes: [{ connections: 2, served: 3 }],
    service: { pid: process.pid, limits_reached: [], refused: {} },
  })
  stop.abort()
  await settle()
  for (const id of [2, 3]) engine?.leave(id)
  t.equal(await ended, undefined)
})
