/** WANs whose devices vanish and come back as new ones, under a download: nothing of it is lost, and what comes back is used again. */
import t, { type Test } from 'tap'
import { startAgent } from '../support/agent.js'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot, needsTun } from '../support/namespaces.js'
import { bondsocks } from '../support/process.js'
import { snapshot } from '../support/snapshot.js'

interface Case {
  wan: 'dsl' | 'lte'
  other: 'dsl' | 'lte'
  /** Of the running download. */
  bytes: number
  plugIn(address: string): Promise<unknown>
  /** As what it comes back, and how long it was away; one after the other. */
  returns: { address: string; awayMs: number }[]
}

/** In an order that does not depend on interface numbers, and without what a new device has by chance. */
async function machine(world: World): Promise<string[]> {
  const text = await snapshot(world.execute('cpe'))
  return text
    .replaceAll(/ +(UNKNOWN|UP) +|@if\d+| fe80::\S+|(?<=stable_secret = ).*/g, ' ')
    .split('\n')
    .sort()
}

/** `world`: with nothing of ours running. */
async function check(t: Test, world: World, { wan, other, bytes, plugIn, returns }: Case): Promise<void> {
  const { lab, client } = world
  const cpe = world.execute('cpe')
  const host = lab.addresses.server
  await lab.unplug(wan)
  await plugIn(returns.at(-1)?.address ?? '')
  const before = await machine(world)
  await lab.unplug(wan)
  await plugIn(returns[0]?.address ?? '')

  const own = await startAgent(t, { argv: (...argv) => lab.argv('cpe', argv) })
  await world.startHag({ drain_seconds: 0 })
  const gateway = await world.startGateway({ drain_seconds: 0 })
  for (const name of [wan, other]) await gateway.waitFor(new RegExp(`WAN ${name} is up`))
  const download = { isRunning: true }
  const downloaded = client.call('download', { host, port: ports.source, bytes }).finally(() => {
    download.isRunning = false
  })
  const localAddress = lab.wans.find(({ name }) => name === other)?.address4 ?? ''
  const beside = own.call('download', { host, port: ports.source, bytes: bytes / 10, localAddress })
  await sleep(1000)
  for (const { address, awayMs } of returns) {
    await lab.unplug(wan)
    if (awayMs > 0) {
      const left = await settle(
        () => world.endpoints(),
        (names) => names.join() === other,
        5000,
      )
      t.same(left, [other], 'its endpoint is gone')
      t.match(await client.call('download', { host, port: ports.source, bytes: 10_000 }), { intact: true, error: undefined })
      await sleep(awayMs)
    }
    await plugIn(address)
    const pluggedAt = performance.now()
    // The counters of a new device begin with nothing.
    const carried = await settle(
      async () => (await lab.wanBytes())[wan]?.down ?? 0,
      (now) => now > 300_000,
      10_000,
    )
    t.comment(`${wan}, now ${address}: carries the download again after ${Math.round(performance.now() - pluggedAt)} ms`)
    const carries = t.ok(
      carried > 300_000 && download.isRunning,
      `it carries the connection that was there before: ${carried} bytes`,
    )
    // What the gateway did, and the subflows that there are, tell why.
    if (!carries) for (const line of [...gateway.output.split('\n'), ...(await cpe('ss', '-tinO')).split('\n')]) t.comment(line)
    const has = new RegExp(`^${address.split('/')[0]} .* dev ${wan}`, 'm')
    const endpoints = () => cpe('ip', 'mptcp', 'endpoint', 'show')
    t.match(await settle(endpoints, (text) => has.test(text), 5000), has)
  }
  t.match(await downloaded, { intact: true, error: undefined }, 'no byte is lost')
  const unmoved = await beside
  t.match(unmoved, { intact: true, error: undefined }, "a connection of the gateway's own over the other WAN")
  t.ok(unmoved.pauseMs < 500, `does not notice: its longest pause was ${Math.round(unmoved.pauseMs)} ms`)

  const start = (await lab.wanBytes())[wan]?.down ?? 0
  t.match(await client.call('download', { host, port: ports.source, bytes: 5_000_000 }), { intact: true, error: undefined })
  t.ok(((await lab.wanBytes())[wan]?.down ?? 0) - start > 500_000, 'new connections use it')
  const planned = await settle(
    () => cpe(...bondsocks('plan', '-c', world.config('gateway'))),
    (text) => text.startsWith('nothing to do'),
  )
  t.match(planned, /^nothing to do/)
  t.same(await gateway.end(), { code: 0, signal: null })
  t.same(await machine(world), before, 'nothing is left in the end')
}

/** Without gateways: they are learned. */
const gateway = { wans: ['dsl', 'lte'].map((name) => ({ name, interface: name })) }

t.test('a modem that is unplugged and plugged in again', { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const world = await World.create(t, { shaped: false, gateway })
  // Ethernet, as USB modems are: the gateway is known by the route that a DHCP client adds.
  const limit = (wan: string) =>
    world.execute('hag')(...`tc qdisc add dev ${wan} root tbf rate 25mbit burst 32k latency 50ms`.split(' '))
  await limit('dsl')
  const plugIn = async (address: string) => {
    await world.lab.plugIn('lte', address)
    await limit('lte')
  }
  const returns = [
    { address: '10.2.0.2/24', awayMs: 0 },
    { address: '10.2.0.77/24', awayMs: 500 },
  ]
  await check(t, world, { wan: 'lte', other: 'dsl', bytes: 30_000_000, plugIn, returns })
})

t.test('a PPP session that ends and begins anew', { skip: needsRoot || needsTun, timeout: 60_000 }, async (t) => {
  // Our emulator's devices are point to point, as those of PPP are.
  const world = await World.create(t, { links: 'emulator', gateway })
  const { lab } = world
  const plugIn = (address: string) => lab.plugIn('dsl', `${address} peer 10.1.0.1/32`)
  const returns = [
    { address: '10.1.0.2', awayMs: 0 },
    { address: '10.1.0.77', awayMs: 500 },
  ]
  await check(t, world, { wan: 'dsl', other: 'lte', bytes: 30_000_000, plugIn, returns })
})
