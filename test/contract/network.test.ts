/** The network set-up's promises, on the model and on the real kernel: it is planned, applied, changed and undone. */
import type { Kernel } from '../../src/network/kernel/kernel.js'
import { Network } from '../../src/network/network.js'
import { observe } from '../../src/network/observe.js'
import { nothingSaved } from '../../src/network/saved.js'
import type { NetworkOptions } from '../../src/network/state.js'
import { addressesOf, onEveryKernel } from '../support/network-kernels.js'
import { failing, gateway, snapshot, texts } from '../support/network-world.js'

onEveryKernel(async (t, world, stride) => {
  t.test('plan changes nothing, apply does what plan said, a second apply nothing, remove undoes it', async (t) => {
    const { kernel, network, before } = await world(t)
    const plan = await network.plan(gateway())
    t.match(texts(plan.steps)[0], /^sysctl -w '?net\./)
    t.same(await snapshot(kernel), before)
    t.equal(kernel.state, undefined)

    t.same(await network.apply(gateway()), plan)
    t.same(texts((await network.apply(gateway())).steps), [])
    t.same(texts((await network.plan(gateway())).steps), [])

    const removed = texts(await network.remove())
    t.match(removed[0], /^iptables-restore .*-X BONDSOCKS/s, 'the redirect goes first')
    t.same(await snapshot(kernel), before)
    t.equal(kernel.state, undefined)
    t.same(await network.remove(), [])
  })

  t.test('without redirect only the redirect goes', async (t) => {
    const { network } = await world(t)
    await network.apply(gateway())
    const steps = texts((await network.apply(gateway(), { redirect: false })).steps)
    t.equal(steps.length, 2)
    t.ok(steps.every((text) => /^ip6?tables-restore/.test(text)))
    t.same(texts((await network.plan(gateway(), { redirect: false })).steps), [])
  })

  t.test('a new address: the new path before the end of the old one, and the other WAN is not touched', async (t) => {
    const { addAddress, removeAddress, network, kernel, before } = await world(t)
    await network.apply(gateway())
    await removeAddress('lte', '10.2.0.2/24')
    await addAddress('lte', '10.2.0.77/24')
    t.same(texts((await network.apply(gateway())).steps), [
      'ip route add 10.2.0.0/24 dev lte scope link src 10.2.0.77 proto 158 table 5801',
      'ip route add default via 10.2.0.1 dev lte src 10.2.0.77 proto 158 table 5801',
      'ip rule add from 10.2.0.77 lookup 5801 pref 701 protocol 158',
      'ip mptcp endpoint add 10.2.0.77 dev lte id 253 subflow',
      'ip mptcp endpoint delete id 254',
      'ip rule del from 10.2.0.2 lookup 5801 pref 701 protocol 158',
    ])
    t.same(texts((await network.plan(gateway())).steps), [])
    await network.remove()
    await removeAddress('lte', '10.2.0.77/24')
    await addAddress('lte', '10.2.0.2/24')
    t.same(await snapshot(kernel), before)
  })

  t.test('what a release with the rules at 5800 has left is found by the next run and by remove', async (t) => {
    const { network, kernel, before } = await world(t)
    const former = gateway({ rule_priority: 5800 })
    const prioritiesOf = (steps: { text: string }[], verb: string) =>
      texts(steps).flatMap((text) => new RegExp(`^ip rule ${verb} from 10.* pref (\\d+)`).exec(text)?.slice(1) ?? [])
    await network.apply(former)
    const { steps } = await new Network(kernel).apply(gateway())
    t.same(prioritiesOf(steps, 'add'), ['700', '701'])
    t.same(prioritiesOf(steps, 'del'), ['5800', '5801'])
    t.same(texts((await network.plan(gateway())).steps), [])
    await network.apply(former)
    t.same(prioritiesOf(await new Network(kernel).remove(), 'del'), ['5800', '5801'])
    t.same(await snapshot(kernel), before)
  })

  t.test('another gateway: the route is replaced in one step', async (t) => {
    const { network } = await world(t)
    await network.apply(gateway())
    const moved = gateway({
      wans: [
        { name: 'dsl', interface: 'dsl', gateway: '10.1.0.254' },
        { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
      ],
    })
    t.same(texts((await network.apply(moved)).steps), [
      'ip route replace default via 10.1.0.254 dev dsl src 10.1.0.2 proto 158 table 5800',
      'ip route replace default via 10.1.0.254 dev dsl src 10.1.0.2 proto 158 table 5809',
    ])
    t.same(texts((await network.plan(moved)).steps), [])
  })

  t.test(
    'two WANs that get the same address while it runs: the first one stays, and what others take away comes back',
    async (t) => {
      const { kernel, network, addAddress, removeAddress } = await world(t)
      const pass = async () => network.apply(gateway())
      await pass()
      const isRedirected = async () => (await snapshot(kernel)).nat4.join('\n').includes('REDIRECT')
      await removeAddress('lte', '10.2.0.2/24')
      await addAddress('lte', '10.1.0.2/24')
      const { wans, notes } = await pass()
      t.match(wans, [{ name: 'dsl', address4: '10.1.0.2' }])
      t.equal(wans.length, 1)
      t.match(notes.join('\n'), /WAN lte is down: its address 10\.1\.0\.2 is another WAN's too/)
      t.match(await addressesOf(kernel), ['10.1.0.2'])
      await kernel.run(['iptables-restore', '--noflush'], '*nat\n-F BONDSOCKS\nCOMMIT\n')
      t.notOk(await isRedirected())
      await pass()
      t.ok(await isRedirected())
      t.same(texts((await pass()).steps), [])
      await removeAddress('lte', '10.1.0.2/24')
      await addAddress('lte', '10.2.0.2/24')
      t.equal((await pass()).wans.length, 2)
      t.same((await addressesOf(kernel)).sort(), ['10.1.0.2', '10.2.0.2'])
    },
  )

  t.test('a WAN that is no longer configured is taken away', async (t) => {
    const { network, kernel, before } = await world(t)
    await network.apply(gateway())
    const alone = gateway({ wans: [{ name: 'dsl', interface: 'dsl', gateway: '10.1.0.1', gateway6: 'fe80::1' }] })
    const { steps } = await network.apply(alone)
    t.match(texts(steps).join('\n'), /ip -6 route add default via fe80::1 dev dsl src 2001:db8:1::2 proto 158 table 5800/)
    t.match(texts(steps).join('\n'), /ip mptcp endpoint delete id 254/)
    t.match(texts(steps).join('\n'), /sysctl -w net.ipv4.conf.lte.rp_filter=/)
    t.same(texts((await network.plan(alone)).steps), [])
    await network.remove()
    t.same(await snapshot(kernel), before)
  })

  t.test('no spelling that the kernel prints in another way', async (t) => {
    const { network, addDevice, addAddress } = await world(t)
    await addDevice('br0.100')
    await addAddress('br0.100', '2001:db8:0:1:0:0:0:1/64')
    const config = gateway({
      lan: { interfaces: ['br0', 'br0.100'] },
      wans: [
        { name: 'dsl', interface: 'dsl', gateway: '172.16.0.1', gateway6: '2001:db8:0:0:1:0:0:1' },
        { name: 'lte', interface: 'lte', gateway: '10.2.0.1' },
      ],
      hags: [{ address: '203.0.113.3' }, { address: '2001:db8::3' }],
      bypass: [
        '0.0.0.0/0',
        '::/0',
        '192.0.2.1',
        '2001:DB8::1',
        '2001:db8:0:1:1:1:1:1',
        '1:0:0:2:0:0:0:3',
        '10.20.30.40/9',
        '64:ff9b::/96',
      ],
    })
    await network.apply(config)
    t.same(texts((await network.plan(config)).steps), [])
  })

  t.test('a failed step: the command, its output, and everything as before', async (t) => {
    const { kernel, network, before } = await world(t)
    const { steps } = await network.plan(gateway())
    for (const [at, { text }] of steps.entries()) {
      if (at % stride !== 0 && at !== steps.length - 1) continue
      const failure = new Network(failing(kernel, at)).apply(gateway())
      const [command = ''] = text.split(" <<'END'")
      await t.rejects(failure, {
        name: 'BondsocksError',
        exitCode: 1,
        message: `"${command}" failed: injected failure; the network is as it was before`,
      })
      t.equal(kernel.state, undefined)
    }
    t.same(await snapshot(kernel), before)

    await network.apply(gateway())
    const [applied, state] = [await snapshot(kernel), kernel.state]
    const other = gateway({
      wans: [{ name: 'lte', interface: 'lte', gateway: '10.2.0.9' }],
      bypass: ['192.0.2.0/24'],
      hags: [{ address: '2001:db8::3' }],
    })
    const changes = (await network.plan(other)).steps.length
    t.ok(changes > 5)
    for (let at = changes - 1; at >= 0; at -= stride)
      await t.rejects(new Network(failing(kernel, at)).apply(other), /injected failure/)
    t.same(await snapshot(kernel), applied)
    t.equal(kernel.state, state)
  })

  t.test('endpoints that are dropped at once, before a pass and while one is under way', async (t) => {
    const { kernel, network } = await world(t)
    await network.dropEndpoints(['10.1.0.2'])
    await network.apply(gateway())
    await network.dropEndpoints(['198.51.100.250', '192.168.1.1', '10.9.9.9'])
    t.equal((await observe(kernel)).endpoints.length, 4, "somebody else's stay")
    await network.dropEndpoints(['10.1.0.2', '2001:db8:1::2'])
    t.same(await addressesOf(kernel), ['10.2.0.2'])
    await network.dropEndpoints(['10.2.0.2'])
    t.same(await addressesOf(kernel), ['10.2.0.2'], 'the last one stays')

    const back = texts((await network.apply(gateway())).steps)
    t.same(back, ['ip mptcp endpoint add 10.1.0.2 dev dsl id 255 subflow'], 'and what was dropped is put in again')
    let during = 0
    const meddled: Kernel = Object.assign(Object.create(kernel) as Kernel, {
      async run(argv: readonly string[], input?: string) {
        if (input?.includes('mptcp endpoint delete id 255') && during === 0) {
          during++
          await other.dropEndpoints(['10.1.0.2'])
        }
        return kernel.run(argv, input)
      },
    })
    const other = new Network(meddled)
    await other.apply(gateway())
    const without = { withoutEndpoint: new Set(['10.1.0.2']) }
    t.same(texts((await other.apply(gateway(), without)).steps), [
      'ip route replace default via 10.2.0.1 dev lte src 10.2.0.2 proto 158 table 5809',
      'ip mptcp endpoint delete id 255',
    ])
    t.equal(during, 1, 'it had gone when its turn came')
    t.same(await addressesOf(kernel), ['10.2.0.2'])
    t.same(texts((await other.apply(gateway(), without)).steps), [])
    const none = { withoutEndpoint: new Set(['10.1.0.2', '10.2.0.2']), best: { 4: 'lte' } }
    t.same(texts((await other.apply(gateway(), none)).steps), [], 'the last one stays')
  })

  t.test('what is not redirected takes the best WAN, and nothing of ours is in the main table', async (t) => {
    const { kernel, network, addAddress } = await world(t)
    await addAddress('lte', '2001:db8:2::2/64')
    kernel.leases = [{ address: '10.1.0.2', gateway: '10.1.0.1' }]
    const run = async (command: string) => t.equal((await kernel.run(command.split(' '))).code, 0, command)
    await run('ip route add default via 10.1.0.1 dev dsl')
    await run('ip -6 route add default via fe80::1 dev dsl metric 1')
    const before = await snapshot(kernel)
    const config = gateway({
      wans: [
        { name: 'dsl', interface: 'dsl' },
        { name: 'lte', interface: 'lte', gateway: '10.2.0.1', gateway6: 'fe80::2' },
      ],
    })
    const [main, rules] = ['table 5809', 'lookup (254|5809)'].map((text) => new RegExp(`${text}\\b`))
    const apply = async (options: NetworkOptions) => {
      const { steps, notes } = await network.apply(config, options)
      t.same(texts((await network.plan(config, options)).steps), [], 'and nothing is left to do')
      t.same(notes, [])
      return texts(steps).filter((text) => main?.test(text) || rules?.test(text))
    }
    t.same(await apply({}), [], 'it does already')
    const both = { best: { 4: 'lte', 6: 'lte' } }
    t.same(await apply(both), [
      'ip route add default via 10.2.0.1 dev lte src 10.2.0.2 proto 158 table 5809',
      'ip rule add from all lookup 254 suppress_prefixlength 0 pref 32764 protocol 158',
      'ip rule add from all lookup 5809 pref 32765 protocol 158',
      'ip -6 route add default via fe80::2 dev lte proto 158 table 5809',
      'ip -6 rule add from all lookup 254 suppress_prefixlength 0 pref 32764 protocol 158',
      'ip -6 rule add from all lookup 5809 pref 32765 protocol 158',
    ])
    // As DHCP clients do after a NAK, after a lease that has run out, and to renew.
    await run('ip route del default via 10.1.0.1 dev dsl')
    t.same(await apply(both), [], 'without one')
    await run('ip route add default via 10.1.0.9 dev dsl')
    await run('ip route replace default via 10.1.0.8 dev dsl')
    await run('ip route add default via 10.2.0.1 dev lte metric 5')
    t.same(await apply(both), [], 'the main table is theirs')
    await run('ip route del default via 10.2.0.1 dev lte metric 5')
    t.same(await apply({ withoutEndpoint: new Set(['10.2.0.2', '2001:db8:2::2']) }), [
      'ip rule del from all lookup 254 suppress_prefixlength 0 pref 32764 protocol 158',
      'ip rule del from all lookup 5809 pref 32765 protocol 158',
      'ip route del default via 10.2.0.1 dev lte src 10.2.0.2 proto 158 table 5809',
      'ip -6 rule del from all lookup 254 suppress_prefixlength 0 pref 32764 protocol 158',
      'ip -6 rule del from all lookup 5809 pref 32765 protocol 158',
      'ip -6 route del default via fe80::2 dev lte proto 158 table 5809',
    ])
    await run('ip route replace default via 10.1.0.1 dev dsl')
    await apply(both)
    await network.remove()
    t.same(await snapshot(kernel), before)

    await run('ip route replace default via 192.168.1.254 dev br0')
    t.match((await network.apply(config, both)).notes, [
      "the main table's IPv4 default route leads over br0, which is no WAN: bondsocks puts no other in its place",
    ])
    t.notMatch((await network.plan(config, both)).steps, [/5809/])
    await network.remove()
  })

  t.test('interfaces that have vanished leave nothing of ours behind', async (t) => {
    const { kernel, network, removeDevice } = await world(t)
    await network.apply(gateway())
    await removeDevice('lte')
    await removeDevice('br0')
    const { notes } = await network.apply(gateway())
    t.ok(notes.includes('WAN lte is down: interface lte does not exist: create it, or correct the config'))
    await network.remove()
    const { rules, routes, endpoints, chains, saved } = await observe(kernel)
    t.same(
      { rules, routes, saved, chains: chains.flatMap(({ exists, rules, jumps }) => [exists, ...rules, ...jumps]) },
      { rules: [], routes: [], saved: nothingSaved, chains: [false, false, false, false] },
    )
    t.same(endpoints.map(({ id }) => id).sort(), [250, 3])
  })
})
