/** Clients that stop reading: what the kernel holds for them has a budget, nobody else waits for it, and they get every byte. */
import t, { type Test } from 'tap'
import { ports, remeasure, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { countDescriptors } from '../support/proc.js'

const budget = 32
const bytes = 20_000_000
/** Of each that stalls: more than all buffers of one connection hold. */
const stalledBytes = 8_000_000
const beside = '192.168.1.90'

/** Megabytes that a host's sockets hold, of what they received or are to send. A byte of MPTCP is at its connection or at its subflow. */
async function held(world: World, host: string): Promise<number> {
  const text = await world.execute(host)('ss', '-tMamn')
  const all = [...text.matchAll(/skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f\d+,w(\d+)/g)]
  return all.reduce((sum, [, received, written]) => sum + Number(received) + Number(written), 0) / 2 ** 20
}

/** As fast as the machine is, so that the kernel's buffers grow at once to what they may. Whoever asks for them gets `addresses`. */
async function worldOf(t: Test, addresses: string[], megabytes = budget) {
  const limits = { buffer_memory_mb: megabytes, drain_seconds: 0 }
  const world = await World.run(t, { shaped: false, gateway: limits, hag: limits })
  const host = world.lab.addresses.server
  for (const one of [...addresses, beside]) await world.device(one)
  // The kernel has one bound for the TCP memory of all hosts of the lab: what the two ends hold must not reach it.
  for (const host of ['lan', 'server']) {
    await world.execute(host)('sysctl', '-qw', 'net.ipv4.tcp_rmem=4096 131072 400000', 'net.ipv4.tcp_wmem=4096 65536 400000')
  }
  const download = async () => {
    const { intact, seconds } = await world.client.call('download', { host, port: ports.source, localAddress: beside, bytes })
    t.ok(intact, 'another client gets all')
    return (bytes * 8) / seconds / 1e6
  }
  /**
   * Beside the budget each has what a buffer may always have. With 2 MB for each, 160 downloads hold 367 MB on the gateway and 227 on the HAG,
   * as many uploads 166 and 358.
   */
  const check = async (maxMegabytes: number, connections: number) => {
    for (const host of ['cpe', 'hag']) {
      // Once nothing more comes.
      let before = -1
      const stands = (now: number) => {
        const isSame = Math.abs(now - before) < 0.1
        before = now
        return isSame
      }
      const megabytes = await settle(() => held(world, host), stands, 10_000)
      t.ok(megabytes < maxMegabytes + 0.6 * connections + 2, `${host}: ${megabytes.toFixed(1)} MB`)
    }
    // Twice what the lab's WANs carry.
    const rate = await remeasure(download, (one) => one > 100)
    t.ok(rate > 100, `at ${rate.toFixed(0)} Mbit/s`)
  }
  return { world, host, check }
}

t.test('stalled downloads hold no more than the budget', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const addresses = Array.from({ length: 10 }, (_, i) => `192.168.1.${70 + i}`)
  const { world, host, check } = await worldOf(t, addresses)
  const { client } = world
  const target = { host, port: ports.source }
  await world.lab.carrier('lte', false)
  await world.gateway.waitFor(/WAN lte is down/)
  // One client gets twice the budget at most.
  await client.call('stall', { ...target, localAddress: addresses.shift() as string }, 160, stalledBytes, 1_000_000)
  // Nor do they hold more when a WAN joins them.
  await world.lab.carrier('lte', true)
  await world.gateway.waitFor(/WAN lte is down.*WAN lte is up/s)
  await settle(
    () => world.execute('cpe')('ss', '-tniH'),
    (text) => (text.match(/tcp-ulp-mptcp flags:\S*j/g)?.length ?? 0) >= 160,
  )
  await check(2 * budget, 160)
  for (const one of addresses) await client.call('stall', { ...target, localAddress: one }, 1, stalledBytes, 1_000_000)
  await check(3 * budget, 169)
  const { intact, seconds } = await client.call('readOn')
  t.equal(intact, 169, 'those that read on get every byte')
  t.comment(`after ${Math.max(...seconds).toFixed(1)} s`)
  await check(0, 1)
})

t.test('many clients together hold no more than four times the budget', { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const few = 8
  const addresses = Array.from({ length: 16 }, (_, i) => `192.168.1.${70 + i}`)
  const { world, host, check } = await worldOf(t, addresses, few)
  for (const localAddress of addresses) {
    await world.client.call('stall', { host, port: ports.source, localAddress }, 4, 12_000_000, 3_000_000)
  }
  await check(4 * few, 64)
})

t.test('uploads to a server that does not read hold no more either', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const greedy = '192.168.1.70'
  const { world, host, check } = await worldOf(t, [greedy])
  const count = 160
  const target = { host, port: ports.lateSink, localAddress: greedy, bytes: stalledBytes, back: 0 }
  const uploads = world.client.call('many', 'halfClose', count, target)
  await check(2 * budget, count)
  await world.server.call('readLate')
  t.same(await uploads, [], 'once it reads it gets every byte')
  await check(0, 1)
})

t.test('connections that ask all at once, after they were idle', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const greedy = '192.168.1.70'
  // So much that the kernel sizes the buffers of some, which it would do for all that have begun before any has moved much.
  const plenty = 200
  const { world, host, check } = await worldOf(t, [greedy], plenty)
  const count = 120
  const target = { host, port: ports.source, localAddress: greedy }
  const { pid } = world.gateway
  const before = countDescriptors(pid)
  await world.client.call('openUnasked', target, count)
  const open = await settle(
    () => countDescriptors(pid) - before,
    (more) => more >= 2 * count,
  )
  t.ok(open >= 2 * count, 'all are relayed')
  await world.client.call('stall', target, count, 40_000_000, 8192)
  // One client: half of the bound, and what each needs.
  await check(plenty / 2, count)
})
