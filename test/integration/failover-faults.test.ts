/** HAGs that misbehave, and helpers that die: the gateway survives, says so in a line, and connections go on. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { startAgent } from '../support/agent.js'
import { ports, remeasure, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot, type Scope } from '../support/namespaces.js'
import type { Program } from '../support/process.js'

/** What `gateway` has logged as a warning or worse. */
const warnings = (output: string) => output.split('\n').filter((line) => /"level":"(warn|error)"/.test(line))

const fetchOf = (world: World) => () =>
  world.client.call('download', { host: world.lab.addresses.server, port: ports.source, bytes: 20_000 })

const misbehaviours: Record<string, (world: World, hag: Program, t: Scope) => Promise<void>> = {
  'becomes something that answers garbage': async (world, hag, t) => {
    await hag.end('SIGKILL')
    const impostor = await startAgent(t, { argv: (...argv) => world.lab.argv('hag', argv) })
    await impostor.call('garbage', 1080)
  },
  // Its kernel goes on to accept.
  'hangs: it accepts and never answers': async (_world, hag, t) => {
    hag.kill('SIGSTOP')
    t.teardown(() => hag.end('SIGKILL'))
  },
}

for (const [what, misbehave] of Object.entries(misbehaviours)) {
  t.test(`the first of two HAGs ${what}`, { skip: needsRoot }, async (t) => {
    const world = await World.create(t)
    const get = fetchOf(world)
    const { hag, hag2 } = world.lab.addresses
    const first = await world.startHag()
    await world.startHag({}, 'hag2')
    const gateway = await world.startGateway({ hags: [{ address: hag }, { address: hag2 }] })
    t.match(await get(), { intact: true, error: undefined })
    const before = gateway.output.length
    await misbehave(world, first, t)
    const all: ReturnType<typeof get>[] = []
    const begin = async () => {
      all.push(get())
      await sleep(100)
    }
    const isSaid = () => warnings(gateway.output.slice(before)).some((line) => line.includes(`HAG ${hag}`))
    while (all.length < 100 && !isSaid()) await begin()
    t.ok(all.length <= 50, `said after ${all.length} connections`)
    for (let index = 0; index < 5; index++) await begin()
    const ended = await Promise.all(all)
    const seconds = ended.map((one) => one.seconds)
    for (const one of ended.slice(-5)) t.match(one, { intact: true, error: undefined }, 'a connection')
    for (const one of ended.slice(0, -5)) {
      // What has the client's words may have passed them on, so they are not said to another HAG: the client gets a RST.
      t.ok(one.intact || one.error === 'ECONNRESET', `a connection: ${one.error ?? 'intact'}`)
    }
    t.ok(Math.max(...seconds) < 6, 'none waits for long')
    t.comment(`slowest ${Math.round(Math.max(...seconds) * 1000)} ms`)
    const last = await remeasure(
      async () => (await get()).seconds,
      (one) => one < 1,
    )
    t.ok(last < 1, `in the end none waits for it: ${last.toFixed(2)} s`)
    // A WAN that a busy machine stopped for a moment is another matter.
    const said = warnings(gateway.output.slice(before)).filter((line) => !/"WAN \w+ is /.test(line))
    t.ok(isSaid(), 'it is said')
    t.ok(said.length <= 6, `in a few lines: ${said.length}`)
    t.match(await get(), { intact: true, error: undefined })
    t.same(await gateway.end(), { code: 0, signal: null })
  })
}

/** The `ip monitor` of a gateway. */
function watchOf(pid: number): number | undefined {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
  return children.find((child) => {
    try {
      return readFileSync(`/proc/${child}/cmdline`, 'utf8').startsWith('ip\0-o\0monitor')
    } catch {
      // It was a short one.
      return false
    }
  })
}

t.test('the only HAG falls silent, and the Internet answers without it', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const { client, gateway, lab } = world
  const get = fetchOf(world)
  t.equal(await client.call('hold', { host: lab.addresses.server, port: ports.echo }, 3), 3)
  await putMiddlebox(lab, 'silence', lab.addresses.hag)
  await gateway.waitFor(/HAG \S+ is down: no answer/)
  await sleep(1000)
  t.equal(await client.call('alive'), 3, 'as long as it may be the line, connections wait')
  t.match(await get(), { intact: true, error: undefined }, 'a new one goes direct')
  const alive = await settle(
    () => client.call('alive'),
    (count) => count === 0,
    10_000,
  )
  t.equal(alive, 0, 'then the others are reset, so that their clients begin anew')
  t.equal(await client.call('hold', { host: lab.addresses.server, port: ports.echo }, 1), 4)
})

t.test(
  'the only HAG answers no greeting: connections go straight over DSL, which is up and costs nothing',
  { skip: needsRoot },
  async (t) => {
    for (const what of ['hangs', 'becomes something that answers garbage', 'is silent']) {
      const world = await World.run(t)
      const { client, gateway, hag, lab } = world
      const host = lab.addresses.server
      await gateway.waitFor(/WAN dsl is up/)
      await gateway.waitFor(/WAN lte is up/)
      // Here the other WAN is the quicker one, as many are.
      await lab.setLink('dsl', { delayMs: 60 })
      await sleep(3000)
      const misbehave = Object.entries(misbehaviours).find(([name]) => name.startsWith(what))?.[1]
      if (misbehave === undefined) await putMiddlebox(lab, 'silence', lab.addresses.hag)
      else await misbehave(world, hag, t)
      await gateway.waitFor(/HAG \S+ is down/)
      await sleep(3000)
      const before = await lab.wanBytes()
      for (let index = 0; index < 5; index++) {
        const one = await client.call('download', { host, port: ports.source, bytes: 100_000 })
        t.match(one, { intact: true, error: undefined })
      }
      const after = await lab.wanBytes()
      const lte = (after.lte?.down ?? 0) - (before.lte?.down ?? 0)
      t.ok(lte < 100_000, `${what}: ${lte} bytes over lte`)
      await gateway.end()
      await lab.down()
    }
  },
)

t.test('the only HAG is away: connections go on, unless its machine was started anew', { skip: needsRoot }, async (t) => {
  const world = await World.create(t)
  const { client, lab } = world
  let hag = await world.startHag()
  // With two, what MPTCP says of the one that is back later would give it away.
  const wans = [{ name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' }]
  const gateway = await world.startGateway({ wans, on_hag_down: 'reject' })
  t.equal(await client.call('hold', { host: lab.addresses.server, port: ports.echo }, 3), 3)
  for (const restarts of [false, true]) {
    await putMiddlebox(lab, 'silence', lab.addresses.hag)
    const before = gateway.output.length
    const said = (what: RegExp) =>
      settle(
        () => what.test(gateway.output.slice(before)),
        (isSaid) => isSaid,
      )
    t.ok(await said(/HAG \S+ is down/))
    if (restarts) {
      // What it says in the end is lost.
      await hag.end('SIGKILL')
      hag = await world.startHag()
    }
    await takeMiddlebox(lab)
    t.ok(await said(/HAG \S+ answers again/))
    const alive = await settle(
      () => client.call('alive'),
      (count) => count === 0,
      restarts ? 10_000 : 3000,
    )
    t.equal(alive, restarts ? 0 : 3)
    if (!restarts) t.equal(await client.call('ping'), 3)
  }
})

t.test('a WAN whose operator lets nothing through but refuses it', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const { gateway, lab } = world
  const get = fetchOf(world)
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  await putMiddlebox(lab, 'refuse', 'dsl')
  await gateway.waitFor(/WAN dsl is down/)
  t.match(await get(), { intact: true, error: undefined })
  await sleep(2000)
  t.same(await world.endpoints(), ['lte'])
  t.match(await get(), { intact: true, error: undefined })
  t.notMatch(gateway.output, /HAG \S+ is down/, 'it is not the HAG that is blamed')
  await takeMiddlebox(lab)
  const before = gateway.output.length
  t.ok(
    await settle(
      () => /WAN dsl is up/.test(gateway.output.slice(before)),
      (isUp) => isUp,
      10_000,
    ),
    'it is used again',
  )
  t.match(await get(), { intact: true, error: undefined })
})

t.test('the watch on the network is killed', { skip: needsRoot }, async (t) => {
  const world = await World.run(t)
  const get = fetchOf(world)
  const watch = await settle(
    () => watchOf(world.gateway.pid),
    (pid) => pid !== undefined,
  )
  if (watch === undefined) throw new Error('the gateway has no child that watches')
  process.kill(watch, 'SIGKILL')
  await world.gateway.waitFor(/the watch on the network ended and is started again/)
  t.match(await get(), { intact: true, error: undefined })
  await sleep(1000)
  await world.lab.carrier('dsl', false)
  const left = await settle(
    () => world.endpoints(),
    (names) => names.join() === 'lte',
    5000,
  )
  t.same(left, ['lte'], 'and links are watched as before')
  t.match(await get(), { intact: true, error: undefined })
  t.equal(warnings(world.gateway.output).filter((line) => line.includes('watch on the network')).length, 1, 'said once')
})
