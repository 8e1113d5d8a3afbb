/** The subflows of live connections over two paths, as the engine finds them. */
import t from 'tap'
import type { DialSpec, Inspection } from '../../src/engine/contract.js'
import { native, needsAddon, specTo } from '../support/engine.js'
import { echoPort, events, inspections, portOf, startChild, twoPaths } from '../support/engine-paths.js'
import { settle, sleep } from '../support/hybrid.js'
import { type Namespace, needsRoot, type Scope } from '../support/namespaces.js'

const unavailable = native?.mptcpUnavailable?.()
const noMptcp = unavailable !== undefined && `no MPTCP here: ${unavailable}`

/** Lets subflows join; over wan2 the CPE reaches the HAG's address on wan1, too. */
async function withMptcp(cpe: Namespace, hag: Namespace): Promise<void> {
  for (const place of [cpe, hag]) {
    await place.exec('ip', 'mptcp', 'limits', 'set', 'subflows', '2', 'add_addr_accepted', '0')
    for (const device of ['all', 'wan1', 'wan2']) await place.exec('sysctl', '-qw', `net.ipv4.conf.${device}.rp_filter=0`)
  }
  await cpe.exec('ip', 'route', 'add', 'default', 'via', '10.0.2.2', 'dev', 'wan2')
}

t.test('inspection', { skip: needsRoot || needsAddon || noMptcp }, async (t) => {
  const { cpe, hag, client } = await twoPaths(t)
  await withMptcp(cpe, hag)
  await cpe.exec('ip', 'mptcp', 'endpoint', 'add', '10.0.2.1', 'dev', 'wan2', 'subflow')
  const hagChild = startChild(t, hag, { listen: { kind: 'socks', address: '10.0.1.2', port: 0 } })
  const hagPort = await portOf(hagChild)
  const remote = { address: '10.0.1.2', port: hagPort }
  const socks = { host: '10.0.1.2', port: echoPort, handshake: 'pipelined', timeoutMs: 10_000 } as const

  /** Opens one connection over `way`, talks, and returns what its inspection settles on. */
  const inspected = async (t: Scope, spec: DialSpec, isRight: (seen: Inspection) => boolean) => {
    const child = startChild(t, cpe, { listen: { kind: 'redirect', address: '127.0.0.1', port: 0 }, spec, inspect: true })
    const target = { host: '127.0.0.1', port: await portOf(child) }
    await client.call('hold', target, 1)
    let pings = 0
    const seen = await settle(
      async () => {
        pings += await client.call('ping')
        return inspections(child)
      },
      ([one]) => one !== undefined && isRight(one),
    )
    await client.call('release', 'fin')
    const opened = events(child).find(({ type }) => type === 'opened')
    await child.end('SIGKILL')
    return { seen, opened, pings }
  }

  t.test('MPTCP: both subflows, with addresses, bytes and RTT', async (t) => {
    const { seen, opened, pings } = await inspected(
      t,
      specTo(remote, { protocol: 'mptcp', bind: '10.0.1.1', socks }),
      ({ subflows }) => subflows.length === 2 && subflows.every(({ rttUs }) => rttUs > 0),
    )
    t.match(opened, { protocol: 'mptcp', local: { address: '10.0.1.1' } })
    t.equal(seen.length, 1)
    t.match(seen[0], { protocol: 'mptcp', remote, client: { address: '127.0.0.1' } })
    t.equal(seen[0]?.sent, seen[0]?.received, 'an echo server')
    const subflows = [...(seen[0]?.subflows ?? [])].sort((one, other) => one.local.address.localeCompare(other.local.address))
    t.match(subflows, [
      { local: { address: '10.0.1.1' }, remote },
      { local: { address: '10.0.2.1' }, remote },
    ])
    for (const { rttUs, unackedPackets, lastAckMs } of subflows) {
      t.ok(rttUs > 0 && rttUs < 1_000_000, `RTT ${rttUs} us`)
      t.ok(unackedPackets < 10 && lastAckMs < 10_000, `${unackedPackets} packets out, last acknowledgement ${lastAckMs} ms ago`)
    }
    // Greeting, CONNECT and the pings one way, method, reply and echoes the other; on whichever path.
    const sum = (key: 'bytesSent' | 'bytesReceived') => subflows.reduce((total, subflow) => total + subflow[key], 0)
    t.ok(sum('bytesSent') >= 13 && sum('bytesSent') < 100 + pings, `${sum('bytesSent')} bytes sent`)
    t.ok(sum('bytesReceived') >= 12 && sum('bytesReceived') < 100 + pings, `${sum('bytesReceived')} bytes received`)
  })

  t.test('what fell back to TCP is told, and has no subflows', async (t) => {
    const plain = { address: '10.0.1.2', port: echoPort }
    const { seen, opened } = await inspected(t, specTo(plain, { protocol: 'mptcp' }), ({ protocol }) => protocol !== undefined)
    t.match(opened, { protocol: 'tcp' })
    t.match(seen, [{ protocol: 'tcp', subflows: [], remote: plain }])
  })

  t.test('plain TCP where asked, although the HAG speaks MPTCP', async (t) => {
    const { seen, opened } = await inspected(t, specTo(remote, { socks }), () => true)
    t.match(opened, { protocol: 'tcp' })
    t.match(seen, [{ protocol: 'tcp', subflows: [] }])
  })
})

t.test('a connection without subflows', { skip: needsRoot || needsAddon || noMptcp }, async (t) => {
  const { cpe, hag, client } = await twoPaths(t)
  await withMptcp(cpe, hag)
  const endpoint = (...what: string[]) => cpe.exec('ip', 'mptcp', 'endpoint', ...what)
  await endpoint('add', '10.0.1.1', 'dev', 'wan1', 'id', '1', 'subflow')
  const hagChild = startChild(t, hag, { listen: { kind: 'socks', address: '10.0.1.2', port: 0 } })
  const socks = { host: '10.0.1.2', port: echoPort, handshake: 'sequential', timeoutMs: 10_000 } as const
  const spec = specTo({ address: '10.0.1.2', port: await portOf(hagChild) }, { protocol: 'mptcp', bind: '10.0.1.1', socks })
  const child = startChild(t, cpe, { listen: { kind: 'redirect', address: '127.0.0.1', port: 0 }, spec, inspect: true })
  await client.call('hold', { host: '127.0.0.1', port: await portOf(child) }, 1)
  t.equal(await client.call('ping'), 1)
  const subflows = (count: number) =>
    settle(
      () => inspections(child)[0]?.subflows.map(({ local }) => local.address) ?? [],
      (addresses) => addresses.length === count,
    )
  /** How many connections resetStranded has reset, at each call so far. */
  const reset = () => [...child.output.matchAll(/"stranded":(\d+)/g)].map(([, count]) => Number(count))
  t.same(await subflows(1), ['10.0.1.1'])

  child.kill('SIGUSR2')
  t.same(await settle(reset, ({ length }) => length === 1), [0], 'one that has a subflow is left alone')
  await endpoint('delete', 'id', '1')
  t.same(await subflows(0), [])
  const pinged = client.call('ping')
  await endpoint('add', '10.0.2.1', 'dev', 'wan2', 'id', '2', 'subflow')
  t.equal(await pinged, 1, 'revives with a new subflow, and nothing is lost')
  t.same(await subflows(1), ['10.0.2.1'])

  await endpoint('delete', 'id', '2')
  t.same(await subflows(0), [])
  child.kill('SIGUSR2')
  t.same(await settle(reset, ({ length }) => length === 2), [0, 1])
  const closed = await settle(
    () => events(child).find(({ type }) => type === 'closed'),
    (event) => event !== undefined,
  )
  t.match(closed, { reason: 'upstream-reset', failure: { code: 'ENETDOWN' } })
})

t.test('a HAG finds out subflows that are gone without a word', { skip: needsRoot || needsAddon || noMptcp }, async (t) => {
  const { cpe, hag, client } = await twoPaths(t)
  await withMptcp(cpe, hag)
  const endpoint = (...what: string[]) => cpe.exec('ip', 'mptcp', 'endpoint', ...what)
  await endpoint('add', '10.0.2.1', 'dev', 'wan2', 'id', '2', 'subflow')
  const hagChild = startChild(t, hag, { listen: { kind: 'socks', address: '10.0.1.2', port: 0 } })
  const port = await portOf(hagChild)
  const socks = { host: '10.0.1.2', port: echoPort, handshake: 'sequential', timeoutMs: 10_000 } as const
  const spec = specTo({ address: '10.0.1.2', port }, { protocol: 'mptcp', bind: '10.0.1.1', socks })
  const child = startChild(t, cpe, { listen: { kind: 'redirect', address: '127.0.0.1', port: 0 }, spec })
  await client.call('hold', { host: '127.0.0.1', port: await portOf(child) }, 1)
  t.equal(await client.call('ping'), 1)
  const subflows = (count: number) =>
    settle(
      async () => (await hag.exec('ss', '-tnH', 'state', 'established', 'sport', '=', `:${port}`)).split('\n').length - 1,
      (found) => found === count,
    )
  t.equal(await subflows(2), 2)
  const drop = (rule: '-A' | '-D', ...which: string[]) =>
    cpe.exec('iptables', '-w', rule, 'OUTPUT', '-p', 'tcp', '-d', '10.0.1.2', ...which, '-j', 'DROP')
  const resets = ['--tcp-flags', 'RST', 'RST']
  await drop('-A')
  await endpoint('delete', 'id', '2')
  // What the HAG says when another one joins is refused at once, but on a full line that may be lost as well.
  await drop('-A', ...resets)
  await drop('-D')
  await endpoint('add', '10.0.2.1', 'dev', 'wan2', 'id', '2', 'subflow')
  t.equal(await subflows(3), 3, 'the old one and the new one')
  await sleep(1000)
  await drop('-D', ...resets)
  t.equal(await subflows(2), 2, 'the old one is refused when it is asked')
  t.equal(await client.call('ping'), 1)
})
