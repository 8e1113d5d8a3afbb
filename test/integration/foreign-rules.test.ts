/** Rules of others in front of ours: each WAN is used by its own interface or not at all, and what others have stays. */
import t from 'tap'
import { settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

t.test('VPN clients, multi-WAN packages, wg-quick, and a rule that prohibits', { skip: needsRoot }, async (t) => {
  const wans = ['dsl', 'lte'].map((name) => ({ name, interface: name, metered: false }))
  const world = await World.create(t, {
    gateway: {
      mark: 0x77,
      wans: wans.map((wan) => ({ ...wan, gateway: wan.name === 'dsl' ? '10.1.0.1' : '10.2.0.1' })),
    },
  })
  const { lab } = world
  const cpe = world.execute('cpe')
  const run = async (...commands: string[]) => {
    for (const command of commands) await cpe(...command.split(' '))
  }
  /** Every new connection works, and over which WANs its bytes came. */
  const download = async () => {
    const { wans, outcome } = await world.downloadByWans(3_000_000)
    t.match(outcome, { intact: true, error: undefined })
    return wans
  }

  await run('ip route add throw 192.168.1.0/24 table 52', 'ip route add default via 10.1.0.1 dev dsl table 52')
  await run('ip rule add from all lookup 52 pref 5270')
  await run('ip rule add from 192.0.2.9 lookup 100 pref 5801')
  await world.startHag()
  const gateway = await world.startGateway()
  await Promise.all(['dsl', 'lte'].map((wan) => gateway.waitFor(new RegExp(`WAN ${wan} is up`))))
  await run('iptables -t mangle -A OUTPUT -m mark ! --mark 0x77 -p tcp --syn --dport 1080')
  t.same(await download(), ['dsl', 'lte'], 'a table of another program in front of ours')
  t.match(await cpe('iptables', '-t', 'mangle', '-vnxL', 'OUTPUT'), /\n +0 +0 .* ! 0x77/, 'all of ours is marked')
  await run('iptables -t mangle -F OUTPUT')
  await lab.blackHole('lte', true)
  await gateway.waitFor(/WAN lte is down/)
  t.same(await download(), ['dsl'], 'one that is dead is found to be')
  await lab.blackHole('lte', false)
  await gateway.waitFor(/WAN lte is up: .*\n[\s\S]*WAN lte is up: /)
  await lab.blackHole('dsl', true)
  await gateway.waitFor(/WAN dsl is down/)
  t.same(await download(), ['lte'], 'and the other one serves')
  await lab.blackHole('dsl', false)
  await gateway.waitFor(/WAN dsl is up: .*\n[\s\S]*WAN dsl is up: /)
  await run('ip rule del pref 5270', 'ip route flush table 52')

  await run('ip route add default via 10.2.0.1 dev lte table 101', 'ip rule add fwmark 0x100/0x3f00 lookup 101 pref 2001')
  await run('iptables -t mangle -A OUTPUT -p tcp --dport 1080 -j MARK --set-mark 0x100/0x3f00')
  t.same(await download(), ['dsl', 'lte'], 'marks that another program sets')
  await run('iptables -t mangle -F OUTPUT', 'ip rule del pref 2001', 'ip route flush table 101')

  await run('ip link add wg0 type veth peer name wg1', 'ip link set wg0 up', 'ip link set wg1 up')
  await run('ip route add default dev wg0 table 51820', 'ip rule add not fwmark 51820 table 51820')
  await run('ip rule add table main suppress_prefixlength 0')
  await gateway.waitFor(/the rule \\"\d+: not from all fwmark 0xca6c lookup 51820\\" leads what this machine sends over wg0/)
  t.same(await download(), ['dsl', 'lte'], 'a VPN that was started after us')
  const theirs = /\tnot from all fwmark 0xca6c lookup 51820\n[\s\S]*5801:\tfrom 192\.0\.2\.9 lookup 100\n/
  t.match(await cpe('ip', 'rule', 'show'), theirs, 'their rules stay')

  await run('ip rule add prohibit from 10.2.0.2 pref 77')
  await gateway.waitFor(
    /WAN lte is down: the kernel has no way for what goes from 10\.2\.0\.2 to HAG 203\.0\.113\.3, .*77: from 10\.2\.0\.2 prohibit/,
  )
  t.same(
    await settle(
      () => world.endpoints(),
      (devices) => devices.length === 1,
      5000,
    ),
    ['dsl'],
  )
  t.same(await download(), ['dsl'], 'a way that is prohibited is none')
  await run('ip rule del pref 77')
  t.same(
    await settle(
      () => world.endpoints(),
      (devices) => devices.length === 2,
      5000,
    ),
    ['dsl', 'lte'],
  )
  t.same(await gateway.end(), { code: 0, signal: null })
  t.match(await cpe('ip', 'rule', 'show'), theirs, 'also at our end')
})
