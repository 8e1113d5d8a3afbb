/** The gateway begins with what there is, says what is missing, and takes it in when it comes. What works without it goes on working. */
import t from 'tap'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import type { Program } from '../support/process.js'
import { stillness } from '../support/snapshot.js'

/** Without gateways: they are learned. */
const learning = { wans: ['dsl', 'lte'].map((name) => ({ name, interface: name })), drain_seconds: 0 }

t.test('what is missing at the start', { skip: needsRoot, timeout: 120_000 }, async (t) => {
  const world = await World.create(t, { shaped: false, gateway: learning })
  const { lab } = world
  const { server: host } = lab.addresses
  const cpe = world.execute('cpe')
  await world.startHag({ drain_seconds: 0 })
  const get = () => world.client.call('download', { host, port: ports.source, bytes: 10_000 })
  const intact = { intact: true, error: undefined }
  const ofLte = (await cpe('ip', 'route', 'show', 'default', 'dev', 'lte')).trim().split(' ')
  const addRoute = () => cpe('ip', 'route', 'replace', ...ofLte, 'dev', 'lte')
  const isTakenIn = async (gateway: Program) => {
    await gateway.waitFor(/WAN lte is up/)
    return settle(
      () => world.endpoints(),
      (names) => names.join() === 'dsl,lte',
      5000,
    )
  }

  const cases: { what: string; remove(): Promise<unknown>; add(): Promise<unknown>; says: RegExp }[] = [
    {
      what: 'its interface',
      remove: () => lab.unplug('lte'),
      add: () => lab.plugIn('lte'),
      says: /WAN lte is down: interface lte does not exist/,
    },
    {
      what: 'its address',
      remove: () => cpe('ip', 'address', 'flush', 'dev', 'lte'),
      add: async () => {
        await cpe('ip', 'address', 'add', '10.2.0.2/24', 'dev', 'lte')
        await addRoute()
      },
      says: /WAN lte is down: interface lte has no address/,
    },
    {
      what: 'its carrier',
      remove: () => lab.carrier('lte', false),
      add: () => lab.carrier('lte', true),
      says: /WAN lte is down: interface lte has no carrier/,
    },
    {
      what: 'its link',
      remove: () => cpe('ip', 'link', 'set', 'lte', 'down'),
      add: async () => {
        await cpe('ip', 'link', 'set', 'lte', 'up')
        await addRoute()
      },
      says: /WAN lte is down: interface lte is down/,
    },
    {
      what: 'its default route',
      remove: () => cpe('ip', 'route', 'delete', 'default', 'dev', 'lte'),
      add: () => addRoute(),
      says: /WAN lte is down: .*no default route/,
    },
  ]
  for (const { what, remove, add, says } of cases) {
    await t.test(`a WAN without ${what}`, async (t) => {
      await remove()
      const gateway = await world.startGateway()
      t.match(gateway.output, says)
      await gateway.waitFor(/WAN dsl is up/)
      t.same(await world.endpoints(), ['dsl'])
      t.match(await get(), intact, 'the other one carries')
      await add()
      t.same(await isTakenIn(gateway), ['dsl', 'lte'])
      t.same(await gateway.end(), { code: 0, signal: null })
    })
  }

  await t.test('no WAN at all, and no LAN', async (t) => {
    for (const wan of ['dsl', 'lte']) await lab.unplug(wan)
    await cpe('ip', 'link', 'set', 'br0', 'down')
    await cpe('ip', 'link', 'set', 'br0', 'name', 'later')
    const before = await stillness(cpe)
    const gateway = await world.startGateway()
    t.match(gateway.output, /WAN dsl is down: interface dsl does not exist/)
    t.match(gateway.output, /LAN interface br0 does not exist/)
    t.match(gateway.output, /the LAN is not redirected/)
    t.notMatch(gateway.output, /the LAN is redirected/)
    t.notMatch(gateway.output, /WAN \S+ is in use again|taken out/)
    t.notMatch(await cpe('iptables-save', '-t', 'nat'), /BONDSOCKS/, 'nobody is led to where no way goes on')
    t.same(await gateway.end(), { code: 0, signal: null })
    t.equal(await stillness(cpe), before, 'it leaves nothing')

    const again = await world.startGateway()
    await cpe('ip', 'link', 'set', 'later', 'name', 'br0')
    await cpe('ip', 'link', 'set', 'br0', 'up')
    for (const wan of ['lte', 'dsl']) await lab.plugIn(wan)
    await again.waitFor(/WAN dsl is up/)
    t.same(await isTakenIn(again), ['dsl', 'lte'])
    await again.waitFor(/the LAN is redirected/)
    t.match(await get(), intact)
    t.same(await again.end(), { code: 0, signal: null })
  })

  await t.test('no answer about the name of the HAG yet', async (t) => {
    const names = await world.dns('silent')
    const gateway = world.start('cpe', 'run', '-c', world.config('gateway', { hags: [{ name: 'hag.example' }] }))
    const bad: unknown[] = []
    let good = 0
    while (!gateway.output.includes('gateway runs')) {
      const { received, ending } = await world.client.call('talk', { host, port: ports.greeter }, '', 1)
      if (received.startsWith('220')) good++
      else bad.push({ received, ending, output: gateway.output })
      await sleep(20)
    }
    t.same(bad, [], `${good} connections meanwhile`)
    t.ok(good > 20)
    t.match(gateway.output, /the HAG hag\.example cannot be looked up/)
    t.match(await get(), intact)
    await names.call('dnsZone', { 'hag.example': { A: [lab.addresses.hag] } })
    await gateway.waitFor(/HAG \S+ is up/)
    await gateway.waitFor(/WAN dsl is up/)
    t.match(await get(), intact)
    t.same(await gateway.end(), { code: 0, signal: null })
  })

  await t.test('a HAG by name, and a first WAN that is silently dead', async (t) => {
    await world.server.call('dns', 53, host)
    await world.server.call('dnsZone', { 'hag.example': { A: [lab.addresses.hag] } })
    world.etc('cpe', 'resolv.conf', `nameserver ${host}\n`)
    const drop = (how: '-I' | '-D') =>
      world.execute('hag')('sh', '-c', `for chain in INPUT FORWARD; do iptables ${how} $chain -i dsl -j DROP; done`)
    await drop('-I')
    const startedAt = performance.now()
    const gateway = world.start('cpe', 'run', '-c', world.config('gateway', { hags: [{ name: 'hag.example' }] }))
    await gateway.waitFor(/HAG \S+ is up/, 20_000)
    await gateway.waitFor(/gateway runs/)
    t.match(await get(), intact)
    t.comment(`served after ${Math.round(performance.now() - startedAt)} ms`)
    t.ok(performance.now() - startedAt < 8000)
    await drop('-D')
    t.same(await gateway.end(), { code: 0, signal: null })
  })

  await t.test('an address that changes while the HAG is silent at the start', async (t) => {
    await world.execute('hag')('iptables', '-I', 'INPUT', '-p', 'tcp', '--dport', '1080', '-j', 'DROP')
    const gateway = world.start('cpe', 'run', '-c', world.config('gateway'))
    await gateway.waitFor(/network is set up/)
    const changedAt = performance.now()
    await cpe('ip', 'address', 'delete', '10.2.0.2/24', 'dev', 'lte')
    await cpe('ip', 'address', 'add', '10.2.0.77/24', 'dev', 'lte')
    await addRoute()
    const rules = await settle(
      () => cpe('ip', 'rule', 'show'),
      (text) => text.includes('from 10.2.0.77'),
      2500,
    )
    t.match(rules, /from 10\.2\.0\.77 lookup 5801/)
    t.notMatch(gateway.output, /gateway runs/, `followed after ${Math.round(performance.now() - changedAt)} ms, before it runs`)
    await world.execute('hag')('iptables', '-D', 'INPUT', '-p', 'tcp', '--dport', '1080', '-j', 'DROP')
    await gateway.waitFor(/gateway runs/)
    await gateway.end()
  })
})
