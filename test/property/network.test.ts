/** Random walks over what can happen to a gateway, on the model: whatever the way, every apply arrives and remove leads back. */
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { desired } from '../../src/network/desired/desired.js'
import { Network } from '../../src/network/network.js'
import { observe } from '../../src/network/observe.js'
import type { Entry } from '../../src/network/state.js'
import { addForeign, failing, fakeWorld, gateway, snapshot } from '../support/network-world.js'

const names = ['dsl', 'lte', 'fibre'] as const
const wan = fc.constantFrom(0, 1, 2)
const host = fc.option(fc.integer({ min: 2, max: 4 }), { nil: undefined })

/** What other programs set; values that we want nowhere, so that they own them from then on. */
const theirSysctls = [
  ['net/mptcp/enabled', '0'],
  ['net/mptcp/close_timeout', '30'],
  ['net/ipv4/conf/dsl/rp_filter', '0'],
  ['net/ipv4/ip_forward', '0'],
  ['net/ipv6/conf/lte/accept_ra', '0'],
  ['net/ipv6/conf/all/forwarding', '0'],
  ['net/ipv6/conf/dsl/forwarding', '0'],
] as const

const event = fc.oneof(
  { weight: 1, arbitrary: fc.record({ type: fc.constant('device' as const), wan, present: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('address' as const), wan, family: fc.constantFrom(4, 6), host }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('carrier' as const), wan, on: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('default' as const),
      wan,
      family: fc.constantFrom(4, 6),
      add: fc.boolean(),
      rank: fc.constantFrom(0, 1, 2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('drop' as const), wan }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('sysctl' as const), sysctl: fc.constantFrom(...theirSysctls) }) },
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant('meddle' as const), what: fc.noBias(fc.nat()), which: fc.noBias(fc.nat()) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('apply' as const),
      quick: fc.boolean(),
      lost: fc.subarray([0, 1, 2]),
      best: fc.option(wan, { nil: undefined }),
      wans: fc.uniqueArray(wan, { minLength: 1, maxLength: 3 }),
      gatewayHost: fc.constantFrom(1, 9),
      bypass: fc.subarray(['192.0.2.0/24', '2001:db8:7::/48']),
      hags: fc.subarray(['203.0.113.3', '2001:db8:3::3'], { minLength: 1 }),
      port: fc.constantFrom(12345, 23456),
      redirect: fc.boolean(),
      failAt: fc.option(fc.nat(30), { nil: undefined, freq: 2 }),
      killed: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('remove' as const), killedAt: fc.option(fc.nat(20), { nil: undefined, freq: 1 }) }),
  },
)
type Event = typeof event extends fc.Arbitrary<infer Value> ? Value : never
type Apply = Extract<Event, { type: 'apply' }>
type Walker = ReturnType<typeof fakeWorld> & {
  network: Network
  /** A quick pass takes the nat tables to be as the last one left them. */
  isNatAltered: boolean
  /** Devices that went away since the last pass. */
  unseen: Set<string>
}

/**
 * A device that goes and comes back between two passes has the values that we gave to `default`, and counts as the former one: it cannot be told
 * from one on which others have set them.
 */
const comesBackUnseen = ({ unseen }: Walker, event: Event) =>
  event.type === 'device' && event.present && unseen.has(names[event.wan] ?? '')

/** What happens around us, to one world; `addresses` remembers what it has. */
async function happen(world: Walker, addresses: Map<string, string>, event: Event): Promise<void> {
  if (event.type === 'apply' || event.type === 'remove' || event.type === 'drop' || event.type === 'meddle') return
  // Where there is no such device any more there is nothing to set.
  if (event.type === 'sysctl') return world.kernel.writeSysctl(event.sysctl[0], event.sysctl[1]).catch(() => {})
  const name = names[event.wan] ?? 'dsl'
  const has = addresses.has(name)
  if (event.type === 'device') {
    if (event.present === has) return
    if (event.present) await world.addDevice(name)
    else await world.removeDevice(name)
    for (const key of [`${name}4`, `${name}6`]) addresses.delete(key)
    if (event.present) addresses.set(name, '')
    else addresses.delete(name)
    return
  }
  if (event.type === 'carrier') return world.kernel.setCarrier(name, event.on)
  if (event.type === 'default') {
    // As one that came before ours, and of a protocol of its own: `ip route add` of our metric would be refused where we are.
    const { family, add, rank, wan } = event
    const route = `default via ${family === 4 ? `10.${wan + 1}.0.1` : 'fe80::1'} dev ${name} proto 16`
    const metric = family === 4 ? ['', ' metric 1', ' metric 100'][rank] : ` metric ${512 + wan}`
    const verb = !add ? 'del' : family === 4 ? 'prepend' : 'add'
    await world.kernel.run(`ip -${family} route ${verb} ${route}${metric}`.split(' '))
    return
  }
  if (!has) return
  const key = `${name}${event.family}`
  const former = addresses.get(key)
  if (former !== undefined) await world.removeAddress(name, former)
  addresses.delete(key)
  if (event.host === undefined) return
  const number = event.wan + 1
  const address = event.family === 4 ? `10.${number}.0.${event.host}/24` : `2001:db8:${number}::${event.host}/64`
  await world.addAddress(name, address)
  addresses.set(key, address)
}

/** Another program takes away or alters something that is ours, where there is any. */
async function meddle(world: Walker, what: number, which: number): Promise<void> {
  const { kernel } = world
  const { rules, routes, endpoints, chains } = await observe(kernel, { lenient: true })
  const pick = <One>(list: readonly One[], at: number) => list[at % list.length]
  const del = (object: string, entries: readonly Entry[]) =>
    entries.map(({ family, spelling }) => `ip -${family} ${object} del ${spelling}`)
  const without = (lines: readonly string[]) => lines.map((line) => line.replace('-A', '-D'))
  const program = which % 2 === 0 ? 'iptables-restore' : 'ip6tables-restore'
  const table = which % 4 < 2 ? 'nat' : 'filter'
  const chain = chains.find((one) => one.table === table && one.family === (which % 2 === 0 ? 4 : 6))
  const { exists = false, jumps = [], rules: redirects = [] } = chain ?? {}
  const alterations = {
    jump: without(jumps),
    chain: [...without(jumps), '-F BONDSOCKS', '-X BONDSOCKS'],
    less: without(redirects.slice(-1)),
    more: ['-A BONDSOCKS -p tcp -j RETURN', `-A ${table === 'nat' ? 'PREROUTING' : 'INPUT'} -i lte -p tcp -j BONDSOCKS`],
  }
  const choices: Record<string, string[]> = {
    rule: del('rule', rules),
    route: del('route', routes),
    endpoint: endpoints.filter(({ isOurs }) => isOurs).map(({ id }) => `ip mptcp endpoint delete id ${id}`),
    ...(exists ? alterations : {}),
  }
  const name = pick(
    Object.keys(choices).filter((key) => choices[key]?.length !== 0),
    what,
  )
  if (name === undefined) return
  const isNat = Object.hasOwn(alterations, name)
  const lines = choices[name] ?? []
  const { code, stderr } = isNat
    ? await kernel.run([program, '--noflush'], [`*${table}`, ...lines, 'COMMIT', ''].join('\n'))
    : await kernel.run(pick(lines, which)?.split(' ') ?? [])
  same([code, stderr], [0, ''], `${name}: ${lines.join()}`)
  meddled[name as keyof typeof meddled] += 1
  world.isNatAltered ||= isNat
}

function configOf({ wans, gatewayHost, bypass, hags, port }: Apply) {
  return gateway({
    wans: wans.map((index) => ({
      name: names[index],
      interface: names[index],
      gateway: `10.${index + 1}.0.${gatewayHost}`,
      gateway6: 'fe80::1',
    })),
    hags: hags.map((address) => ({ address })),
    listen: { port },
    bypass,
  })
}

const sorted = (list: readonly object[]) => list.map((one) => JSON.stringify(one)).sort()
const same = (actual: unknown, expected: unknown, what: string) => {
  if (!isDeepStrictEqual(actual, expected)) t.same(actual, expected, what)
  if (!isDeepStrictEqual(actual, expected)) throw new Error(what)
}

/** How often each end was reached: a walk that never gets there proves nothing. */
const reached = { applied: 0, failed: 0, killed: 0, removed: 0 }
/** And how often each kind of our things was meddled with. */
const meddled = { rule: 0, route: 0, endpoint: 0, chain: 0, jump: 0, more: 0, less: 0 }

async function apply(world: Walker, addresses: Map<string, string>, event: Apply): Promise<void> {
  const config = configOf(event)
  const lost = event.lost.flatMap((index) => [`${names[index]}4`, `${names[index]}6`])
  const { redirect } = event
  const quick = event.quick && !world.isNatAltered
  const best = event.best === undefined ? {} : { best: { 4: names[event.best] ?? '', 6: names[event.best] ?? '' } }
  const withoutEndpoint = new Set(lost.map((key) => addresses.get(key)?.split('/')[0] ?? ''))
  const options = { redirect, quick, withoutEndpoint, ...best }
  const [before, state] = [await snapshot(world.kernel), world.kernel.state]
  const unchanged = async (what: string) => {
    same(await snapshot(world.kernel), before, what)
    same(world.kernel.state, state, `${what}: state file`)
  }
  const { network } = world
  const planned = await network.plan(config, options)
  await unchanged('plan changes nothing')
  if (event.failAt !== undefined && event.failAt < planned.steps.length) {
    if (event.killed) {
      const dying = new Network(failing(world.kernel, event.failAt, { killed: true }))
      same(await dying.apply(config, options).catch(() => 'killed'), 'killed', 'killed on the way')
      reached.killed += 1
      // Another process takes over.
      world.network = new Network(world.kernel)
      return
    }
    const error = await new Network(failing(world.kernel, event.failAt)).apply(config, options).catch((reason: Error) => reason)
    same(error instanceof Error && /injected failure; the network is as it was before$/.test(error.message), true, String(error))
    reached.failed += 1
    return unchanged('a failed step leaves the former state')
  }
  reached.applied += 1
  same(await network.apply(config, options), planned, 'apply does what plan said')
  world.unseen.clear()
  world.isNatAltered = false
  same((await network.plan(config, options)).steps, [], 'a second apply has no steps')
  const after = await observe(world.kernel)
  const wanted = desired(config, after, options)
  same(sorted(after.rules), sorted(wanted.rules), 'rules')
  same(sorted(after.routes), sorted(wanted.routes), 'routes')
  const endpoints = after.endpoints.filter(({ isOurs }) => isOurs).map(({ address, device }) => ({ address, device }))
  same(sorted(endpoints), sorted(wanted.endpoints), 'endpoints')
  const isThere = after.chains.filter(({ exists, rules, jumps }) => exists || rules.length > 0 || jumps.length > 0)
  const ours = isThere.map(({ family, table, rules, jumps }) => ({ family, table, rules, jumps }))
  same(sorted(ours), sorted(wanted.chains), 'chains')
  for (const [path, value] of wanted.sysctls) same(after.sysctls.get(path), value, path)
}

const initial = names.map((name, index) => [name, `10.${index + 1}.0.2/24`] as const)

async function start(): Promise<Walker> {
  const made = fakeWorld()
  const world = { ...made, network: new Network(made.kernel), isNatAltered: false, unseen: new Set<string>() }
  await world.addDevice('br0')
  await world.addAddress('br0', '192.168.1.1/24')
  for (const [device, address] of initial) {
    await world.addDevice(device)
    await world.addAddress(device, address)
  }
  await addForeign(world.kernel)
  // One of the third WAN's addresses is served by somebody else.
  await world.kernel.run('ip mptcp endpoint add 10.3.0.2 id 9 subflow'.split(' '))
  return world
}

t.test('random walks', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 20, size: 'max' }), async (events) => {
      const [world, untouched] = [await start(), await start()]
      const known = () =>
        new Map<string, string>(initial.flatMap(([name, address]) => [[name, ''] as const, [`${name}4`, address] as const]))
      const [here, there] = [known(), known()]
      const isOtherwiseUntouched = async (what: string) =>
        same(await snapshot(world.kernel), await snapshot(untouched.kernel), what)
      for (const one of events) {
        if (comesBackUnseen(world, one)) continue
        if (one.type === 'device' && !one.present) world.unseen.add(names[one.wan] ?? '')
        await happen(world, here, one)
        await happen(untouched, there, one)
        if (one.type === 'apply') {
          await apply(world, here, one)
          const foreign = (await snapshot(world.kernel)).nat4.filter((line) => line.includes('FOREIGN'))
          same(
            foreign,
            (await snapshot(untouched.kernel)).nat4.filter((line) => line.includes('FOREIGN')),
            'foreign rules',
          )
        }
        if (one.type === 'meddle') await meddle(world, one.what, one.which)
        if (one.type === 'drop') {
          const known = ['4', '6'].map((family) => here.get(`${names[one.wan]}${family}`)?.split('/')[0] ?? '')
          const foreign = async () => (await observe(world.kernel, { lenient: true })).endpoints.filter(({ isOurs }) => !isOurs)
          const before = await foreign()
          await world.network.dropEndpoints(known)
          same(await foreign(), before, "somebody else's endpoints")
        }
        if (one.type === 'remove' && one.killedAt !== undefined) {
          const dying = new Network(failing(world.kernel, one.killedAt, { killed: true }))
          await dying.remove().catch(() => {})
          world.network = new Network(world.kernel)
        } else if (one.type === 'remove') {
          await world.network.remove()
          world.unseen.clear()
          same(world.kernel.state, undefined, 'no state file is left')
          await isOtherwiseUntouched('remove leaves what would be there without us')
          reached.removed += 1
        }
      }
      await world.network.remove()
      same(world.kernel.state, undefined, 'no state file is left')
      await isOtherwiseUntouched('the last remove leaves what would be there without us')
      const { rules, routes } = await observe(world.kernel, { lenient: true })
      same({ rules, routes }, { rules: [], routes: [] }, 'nothing of ours')
    }),
    { numRuns: 200 },
  )
  t.comment(reached, meddled)
  t.ok(
    Object.values(reached).every((count) => count > 15),
    'every end was reached often',
  )
  t.ok(
    Object.values(meddled).every((count) => count > 2),
    'and everything of ours was meddled with',
  )
})
