/** What others have changed of the network stays theirs, or is given back as it was, on the model and on the real kernel. */
import { Network } from '../../src/network/network.js'
import { observe } from '../../src/network/observe.js'
import { addressesOf, onEveryKernel } from '../support/network-kernels.js'
import { failing, gateway, snapshot, texts } from '../support/network-world.js'

onEveryKernel(async (t, world, stride) => {
  t.test('what somebody else changes after us stays theirs', async (t) => {
    const { kernel, network, before } = await world(t)
    await network.apply(gateway())
    // One that every kernel has: Linux 6.1 lacks some of net.mptcp.
    const sysctl = 'net/ipv4/conf/lte/rp_filter'
    await kernel.writeSysctl(sysctl, '1')
    await kernel.run(['ip', 'mptcp', 'limits', 'set', 'subflows', '7'])
    t.same(texts((await network.apply(gateway())).steps), ['sysctl -w net.ipv4.conf.lte.rp_filter=2'], 'the limit may be higher')
    await kernel.writeSysctl(sysctl, '1')
    await network.remove()
    const after = await snapshot(kernel)
    t.match(after, { limits: 'add_addr_accepted 0 subflows 7', sysctls: { [sysctl]: '1' } })
    t.same(after, { ...before, limits: after.limits, sysctls: { ...before.sysctls, [sysctl]: '1' } })
  })

  t.test('forwarding that was on for one interface only is found like that again', async (t) => {
    const { kernel, network, addDevice } = await world(t)
    for (const version of ['ipv4', 'ipv6']) await kernel.writeSysctl(`net/${version}/conf/lte/forwarding`, '1')
    const before = await snapshot(kernel)
    await network.apply(gateway())
    await network.apply(gateway())
    await network.remove()
    t.same(await snapshot(kernel), before)

    const values = before.sysctls
    for (let at = 0; ; at += stride) {
      const { steps } = await network.apply(gateway())
      t.ok(steps.length > 0)
      const dying = new Network(failing(kernel, at, { killed: true }))
      const isWhole = await dying.remove().then(
        () => true,
        () => false,
      )
      await network.remove()
      t.same((await snapshot(kernel)).sysctls, values, `killed at step ${at} of remove`)
      if (isWhole) break
    }

    await network.apply(gateway())
    await addDevice('late')
    await network.remove()
    const { sysctls } = await snapshot(kernel)
    t.equal(sysctls['net/ipv4/conf/late/forwarding'], '0', 'an interface that came later does not go on forwarding')
    t.equal(sysctls['net/ipv6/conf/late/forwarding'], '0')
  })

  t.test('settings that switch MPTCP off are as they should be for as long as it lasts', async (t) => {
    const { kernel, network } = await world(t)
    const has = await kernel.readSysctls(['net/mptcp/*'])
    const manager = has.has('net/mptcp/path_manager') ? ['path_manager', 'userspace', 'kernel'] : ['pm_type', '1', '0']
    const wrong = [manager, ['stale_loss_cnt', '0', '4']] as [string, string, string][]
    await kernel.writeSysctl('net/ipv4/tcp_window_scaling', '0')
    for (const [key, value] of wrong) await kernel.writeSysctl(`net/mptcp/${key}`, value)
    const before = await snapshot(kernel)
    const values = async () => {
      const { sysctls } = await snapshot(kernel)
      return [...wrong.map(([key]) => sysctls[`net/mptcp/${key}`]), sysctls['net/ipv4/tcp_window_scaling']]
    }
    await network.apply(gateway())
    t.same(await values(), [...wrong.map(([, , right]) => right), '1'])
    t.same(texts((await network.apply(gateway())).steps), [], 'they stay so')
    for (const [key, value] of wrong) await kernel.writeSysctl(`net/mptcp/${key}`, value)
    await network.apply(gateway())
    t.same(await values(), [...wrong.map(([, , right]) => right), '1'], 'also where somebody sets them again')
    await network.remove()
    t.same(await snapshot(kernel), before)
  })

  t.test("somebody else's endpoint that looks like ours stays theirs", async (t) => {
    const { kernel, network } = await world(t)
    const add = async (words: string) => t.equal((await kernel.run(`ip mptcp endpoint add ${words}`.split(' '))).code, 0)
    await add('192.168.1.7 dev br0 id 255 subflow')
    const before = await snapshot(kernel)
    await network.apply(gateway())
    const addresses = async () => (await observe(kernel)).endpoints.map(({ address }) => address).sort()
    const all = ['10.1.0.2', '10.2.0.2', '192.168.1.1', '192.168.1.7', '198.51.100.250']
    t.same(await addresses(), all)
    t.same((await new Network(kernel).apply(gateway())).steps, [])
    await add('192.168.1.8 dev br0 id 248 subflow')
    t.same((await network.apply(gateway())).steps, [], 'one that comes later, too')
    await kernel.run('ip mptcp endpoint delete id 248'.split(' '))
    await network.remove()
    t.same(await snapshot(kernel), before)

    await kernel.run('ip mptcp endpoint delete id 255'.split(' '))
    await network.apply(gateway())
    kernel.state = undefined
    await new Network(kernel).remove()
    t.same(await addresses(), ['192.168.1.1', '198.51.100.250'], 'ours are known without the state file, too')
  })

  t.test("somebody else's endpoints of a WAN are taken over, and put back as they were", async (t) => {
    const { kernel, network } = await world(t)
    // As NetworkManager makes them, and as a person might: of a WAN in use, of a backup, of a third address, and of the LAN's without an
    // interface, whose joins would leave over a WAN.
    for (const command of [
      'ip mptcp endpoint add 10.1.0.2 dev dsl id 9 subflow',
      'ip mptcp endpoint add 10.2.0.2 dev lte id 10 backup subflow',
      'ip mptcp endpoint add 10.2.0.9 dev lte id 11 fullmesh subflow',
      'ip mptcp endpoint add 192.168.1.7 id 12 subflow',
    ]) {
      t.equal((await kernel.run(command.split(' '))).code, 0, command)
    }
    const before = await snapshot(kernel)
    const withoutEndpoint = new Set(['10.2.0.2'])
    const first = await network.apply(gateway(), { withoutEndpoint })
    t.same(await addressesOf(kernel), ['10.1.0.2'], 'a backup has none')
    t.same(
      (await observe(kernel)).endpoints.filter(({ isOurs }) => !isOurs).map(({ address }) => address),
      ['192.168.1.1', '198.51.100.250'],
      'what is none of a WAN stays',
    )
    t.equal(first.notes.filter((note) => /somebody else's MPTCP endpoint .* put back at the end/.test(note)).length, 4)
    const again = await network.apply(gateway())
    t.same(texts(again.steps), ['ip mptcp endpoint add 10.2.0.2 dev lte id 254 subflow'])
    t.same(again.notes, first.notes, 'said as long as it lasts')
    // It is made anew meanwhile, in another way, because its address was.
    await kernel.run('ip mptcp endpoint delete id 254'.split(' '))
    await kernel.run('ip mptcp endpoint add 10.2.0.2 dev lte id 10 subflow'.split(' '))
    await network.apply(gateway(), { withoutEndpoint })
    t.same(await addressesOf(kernel), ['10.1.0.2'])
    await new Network(kernel).remove()
    const endpoints = before.endpoints.map((one) => one.replace(',"backup":true', ''))
    t.same(await snapshot(kernel), { ...before, endpoints }, 'by another process, too')
  })

  t.test("somebody else's endpoints where nothing is as simple", async (t) => {
    const { kernel, network, removeDevice } = await world(t)
    for (const command of [
      'ip mptcp endpoint add 10.1.0.2 dev dsl id 255 signal subflow',
      'ip mptcp endpoint add 10.2.0.2 dev lte id 254 fullmesh subflow',
    ]) {
      t.equal((await kernel.run(command.split(' '))).code, 0, command)
    }
    await network.apply(gateway())
    t.same((await addressesOf(kernel)).sort(), ['10.1.0.2', '10.2.0.2'])
    // A config without this WAN gives it back at once, under another number where its own is taken.
    await network.apply(gateway({ wans: [{ name: 'dsl', interface: 'dsl', gateway: '10.1.0.1' }] }))
    const { endpoints } = await observe(kernel)
    t.match(endpoints.find(({ address }) => address === '10.2.0.2')?.flags, ['fullmesh', 'subflow'])
    await removeDevice('dsl')
    await network.remove()
    const left = (await observe(kernel)).endpoints
    t.match(
      left.map(({ address, flags }) => [address, flags]).sort(),
      [
        ['10.2.0.2', ['fullmesh', 'subflow']],
        ['192.168.1.1', ['signal']],
        ['198.51.100.250', ['signal']],
      ],
      'one whose device is gone is not put back',
    )
    t.equal(await kernel.readState(), undefined)
  })

  t.test('a default route that a former release left in the main table goes; what others have in our tables stays', async (t) => {
    const { kernel, network } = await world(t)
    const before = await snapshot(kernel)
    for (const command of [
      'ip route add default via 10.1.0.1 dev dsl proto 158 metric 1 table main',
      'ip route add default via 10.2.0.1 dev lte src 10.2.0.2 table 5801',
    ])
      await kernel.run(command.split(' '))
    const { steps } = await network.apply(gateway())
    t.match(texts(steps).join('\n'), /ip route replace default via 10\.2\.0\.1 dev lte src 10\.2\.0\.2 proto 158 table 5801\n/)
    t.match(texts(steps).join('\n'), /ip route del default via 10\.1\.0\.1 dev dsl proto 158 metric 1 table main/)
    await network.remove()
    t.same(await snapshot(kernel), before)

    await kernel.run('ip route add 198.51.100.0/24 via 10.2.0.9 dev lte table 5801'.split(' '))
    const theirs = await snapshot(kernel)
    await network.apply(gateway())
    t.same(texts((await network.plan(gateway())).steps), [])
    await network.remove()
    t.same(await snapshot(kernel), theirs)
  })
})
