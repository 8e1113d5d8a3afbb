/**
 * Memory at the start; and 10,000 idle connections, or as many as the limit of descriptors allows: two descriptors each, and less than 10 MB of memory
 * in all.
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { descriptorLimit } from '../../src/config/defaults.js'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'
import { countDescriptors, privateMemory, residentMemory } from '../support/proc.js'
import { bondsocks } from '../support/process.js'

// Some stay free: for pipes, and for Node.
const connections = Math.min(10_000, Math.floor((descriptorLimit(readFileSync('/proc/self/limits', 'utf8')) - 500) / 2))
/** By default more of them are kept for pipes. */
const limits = { max_connections: 20_000 }

// Other versions of Node take more themselves.
const needsNode20 = process.version.startsWith('v20.') ? needsRoot : 'the bounds are for Node 20'

t.test('memory at the start', { skip: needsNode20 }, async (t) => {
  const { gateway, lab } = await World.run(t, { shaped: false, gateway: limits })
  for (const { name } of lab.wans) await gateway.waitFor(new RegExp(`WAN ${name} is up`))
  // In turn over a second, because a process that it starts shares its memory for a moment.
  const measure = async () => {
    const readings = []
    for (let i = 0; i < 9; i++) {
      readings.push({ resident: residentMemory(gateway.pid) / 1e6, own: privateMemory(gateway.pid) / 1e6 })
      await sleep(100)
    }
    return readings.sort((a, b) => a.own - b.own)[4] ?? { resident: 0, own: 0 }
  }
  const { resident, own } = await remeasure(measure, (now) => now.resident < 64 && now.own < 18)
  t.comment(`${resident.toFixed(1)} MB resident, ${own.toFixed(1)} MB private memory`)
  t.ok(resident > 0 && resident < 64, `${resident} MB resident memory`)
  t.ok(own < 18, `${own} MB private memory`)
})

t.test('idle connections', { skip: needsRoot }, async (t) => {
  const { client, lab, gateway, hag } = await World.run(t, { shaped: false, gateway: limits, hag: limits })
  const target = { host: lab.addresses.server, port: ports.echo }
  // The first connections load code and fill pools: what every later one costs is the question.
  await client.call('hold', target, 100)
  await client.call('release', 'fin')
  const floor = await settle(
    () => countDescriptors(gateway.pid),
    (count) => count < 100,
  )
  const memory = privateMemory(gateway.pid)

  t.equal(await client.call('hold', target, connections), connections)
  const added = privateMemory(gateway.pid) - memory
  t.comment(`${connections} idle connections: ${(added / 1e6).toFixed(1)} MB private memory in the gateway`)
  t.ok(added < 10e6, `${added} bytes`)
  for (const [name, { pid }] of Object.entries({ gateway, hag })) {
    // Pipes of connections that were active a moment ago go back to the pool: allow for those, not for a third descriptor each.
    const each = await settle(
      () => (countDescriptors(pid) - floor) / connections,
      (one) => one < 2.02,
    )
    t.ok(each >= 1.99 && each < 2.02, `${name}: ${each} descriptors each`)
  }

  // As many as a terminal monitor asks for in five seconds.
  for (let times = 0; times < 5; times++) t.match(await outcome(lab.argv('cpe', bondsocks('status'))), { code: 0 })
  const asked = privateMemory(gateway.pid) - memory
  t.ok(asked < 12e6, `${asked} bytes more after five questions for the status`)
  t.equal(await client.call('ping', 60_000), connections, 'all of them still work')
  await client.call('release', 'rst')
  const left = await settle(
    () => countDescriptors(gateway.pid),
    (count) => count <= floor + 100,
    20_000,
  )
  t.ok(left <= floor + 100, `${left} descriptors when they are gone, ${floor} before`)
})
