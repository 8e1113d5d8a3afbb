/** What was said last arrives, although both ends have ended the connection and the path is silent or slow meanwhile. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { needsAddon } from '../support/engine.js'
import type { Setup } from '../support/engine-child.js'
import { portOf, startChild } from '../support/engine-paths.js'
import { connect, createNamespace, type Namespace, needsRoot, type Scope } from '../support/namespaces.js'

const sinkPort = 9001
const closed = /"type":"closed".*"reason":"([a-z-]+)"/

/** A CPE and a HAG, whose larger packets the path can lose: requests and acknowledgements get through. */
async function world(t: Scope, hagOptions: Setup['options'] = {}) {
  const cpe = await createNamespace(t, 'cpe')
  const hag = await createNamespace(t, 'hag')
  await connect(
    { namespace: cpe, device: 'wan', addresses: ['10.0.1.1/24'] },
    { namespace: hag, device: 'wan', addresses: ['10.0.1.2/24'] },
  )
  const client = await startAgent(t, cpe)
  await (await startAgent(t, hag)).call('sink', sinkPort)
  const entry = startChild(t, hag, { options: hagOptions, listen: { kind: 'socks', address: '10.0.1.2', port: 0 } })
  const gateway = startChild(t, cpe, {
    listen: { kind: 'redirect', address: '127.0.0.1', port: 0 },
    spec: {
      protocol: 'mptcp',
      remote: { address: '10.0.1.2', port: await portOf(entry) },
      connectTimeoutMs: 5000,
      socks: { host: '10.0.1.2', port: sinkPort, handshake: 'pipelined', timeoutMs: 5000 },
    },
  })
  const front = { host: '127.0.0.1', port: await portOf(gateway) }
  const path = (what: '-A' | '-D', place: Namespace) =>
    place.exec('iptables', '-w', what, 'OUTPUT', '-o', 'wan', '-m', 'length', '--length', '600:65535', '-j', 'DROP')
  return { cpe, hag, client, entry, gateway, front, path }
}

const gapMs = 2500

t.test('an answer behind which both ends have ended', { skip: needsRoot || needsAddon }, async (t) => {
  const { hag, client, entry, front, path } = await world(t)
  for (const silent of [true, false]) {
    const before = entry.output.match(/"closed"/g)?.length ?? 0
    if (silent) await path('-A', hag)
    const transfer = client.call('halfClose', { ...front, bytes: 100, back: 50_000 })
    if (silent) {
      await sleep(gapMs)
      t.equal(entry.output.match(/"closed"/g)?.length ?? 0, before, 'it is not over before it has arrived')
      await path('-D', hag)
    }
    const { intact, error } = await transfer
    t.ok(intact && error === undefined, silent ? 'it arrives once the path carries it' : 'on a path that carries it at once')
    await entry.waitFor(new RegExp(`(?:[^]*"closed"){${before + 1}}`), silent ? undefined : 900)
  }
  t.equal(entry.output.match(/"reason":"end"/g)?.length, 2, 'an orderly end')
})

t.test('a client that is gone for good', { skip: needsRoot || needsAddon }, async (t) => {
  const { hag, client, entry, front, path } = await world(t, { idleTimeoutMs: 1500 })
  await path('-A', hag)
  const transfer = client.call('halfClose', { ...front, bytes: 100, back: 50_000 })
  t.equal((await entry.waitFor(closed))[1], 'client-reset', 'nothing is kept of it for ever')
  t.match(entry.output, /"code":"ETIMEDOUT","errno":\d+,"syscall":"close"|"syscall":"close".*"ETIMEDOUT"/)
  await transfer
})

t.test('a HAG that is killed meanwhile', { skip: needsRoot || needsAddon }, async (t) => {
  const { hag, client, entry, front, path } = await world(t)
  await path('-A', hag)
  const transfer = client.call('halfClose', { ...front, bytes: 100, back: 50_000 })
  await sleep(1500)
  await entry.end('SIGKILL')
  await path('-D', hag)
  const { intact, error } = await transfer
  t.ok(intact && error === undefined, 'the kernel sees to what was said')
})
