/** Clients that stop reading: what the kernel holds for them has a budget, nobody else waits for it, and they get every byte. */
import t from 'tap'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const budget = 16
const count = 20
const bytes = 40_000_000

// As fast as the machine is, so that the kernel's buffers grow at once to what they may.
t.test('stalled downloads hold no more than the budget', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const limits = { buffer_memory_mb: budget }
  const world = await World.run(t, { shaped: false, gateway: limits, hag: limits })
  const { client, lab } = world
  const target = { host: lab.addresses.server, port: ports.source }
  /** Megabytes that a host's sockets hold, of what they received or are to send. */
  const held = async (host: string) => {
    const text = await world.execute(host)('ss', '-tMamn')
    const all = [...text.matchAll(/skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f\d+,w(\d+)/g)]
    return all.reduce((sum, [, received, written]) => sum + Number(received) + Number(written), 0) / 2 ** 20
  }
  await client.call('stall', target, count, bytes, 3_000_000)
  await sleep(3000)
  for (const host of ['cpe', 'hag']) {
    const megabytes = await settle(
      () => held(host),
      (now) => now < 1.3 * budget,
      5000,
    )
    t.ok(megabytes < 1.3 * budget, `${host}: ${megabytes.toFixed(1)} MB`)
  }
  const beside = '192.168.1.77'
  await world.execute('lan')('ip', 'address', 'add', `${beside}/24`, 'dev', 'eth0')
  const download = async () => {
    const { intact, seconds } = await client.call('download', { ...target, localAddress: beside, bytes })
    t.ok(intact, 'another client gets all')
    return (bytes * 8) / seconds / 1e6
  }
  // Twice what the lab's WANs carry.
  const rate = await remeasure(download, (one) => one > 100)
  t.ok(rate > 100, `at ${rate.toFixed(0)} Mbit/s`)
  const { intact, seconds } = await client.call('readOn')
  t.equal(intact, count, 'those that read on get every byte')
  t.comment(`after ${seconds.toFixed(1)} s`)
})
