/** Rules of others in front of ours: each WAN is used by its own interface or not at all, and what others have stays. */
import t, { type Test } from 'tap'
import { joinsByOwnDevice } from '../../src/base/kernel-version.js'
import { settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { bondsocks } from '../support/process.js'

/** Before that a rule of others that leads a WAN's traffic elsewhere cannot be got round. */
const bindsToDevices = joinsByOwnDevice()

/** Commands for the gateway, and what downloads through it: every new connection works; the WANs by which its bytes came. */
async function worldOf(t: Test) {
  const wans = ['dsl', 'lte'].map((name) => ({ name, interface: name, metered: false }))
  const world = await World.create(t, {
    gateway: {
      mark: 0x77,
      wans: wans.map((wan) => ({ ...wan, gateway: wan.name === 'dsl' ? '10.1.0.1' : '10.2.0.1' })),
    },
  })
  const cpe = world.execute('cpe')
  const run = async (...commands: string[]) => {
    for (const command of commands) await cpe(...command.split(' '))
  }
  const download = async () => {
    const { wans, outcome } = await world.downloadByWans(3_000_000)
    t.match(outcome, { intact: true, error: undefined })
    return wans
  }
  return { world, cpe, run, download }
}

const needsBinding = !bindsToDevices && "before Linux 6.7 MPTCP is not bound to its WANs' devices"

t.test('VPN clients, multi-WAN packages, and wg-quick', { skip: needsRoot || needsBinding }, async (t) => {
  const { world, cpe, run, download } = await worldOf(t)
  const { lab } = world
  await run('ip route add throw 192.168.1.0/24 table 52', 'ip route add default via 10.1.0.1 dev dsl table 52')
  await run('ip rule add from all lookup 52 pref 270')
  await run('ip rule add from 192.0.2.9 lookup 100 pref 701')
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
  await run('ip rule del pref 270', 'ip route flush table 52')

  await run('ip route add default via 10.2.0.1 dev lte table 101', 'ip rule add fwmark 0x100/0x3f00 lookup 101 pref 201')
  await run('iptables -t mangle -A OUTPUT -p tcp --dport 1080 -j MARK --set-mark 0x100/0x3f00')
  t.same(await download(), ['dsl', 'lte'], 'marks that another program sets')
  await run('iptables -t mangle -F OUTPUT', 'ip rule del pref 201', 'ip route flush table 101')

  await run('ip link add wg0 type veth peer name wg1', 'ip link set wg0 up', 'ip link set wg1 up')
  await run('ip route add default dev wg0 table 51820', 'ip rule add not fwmark 51820 table 51820')
  await run('ip rule add table main suppress_prefixlength 0')
  await gateway.waitFor(/the rule \\"\d+: not from all fwmark 0xca6c lookup 51820\\" leads what this machine sends over wg0/)
  t.same(await download(), ['dsl', 'lte'], 'a VPN that was started after us')
  const theirs = /\tnot from all fwmark 0xca6c lookup 51820\n[\s\S]*701:\tfrom 192\.0\.2\.9 lookup 100\n/
  t.match(await cpe('ip', 'rule', 'show'), theirs, 'their rules stay')

  t.same(await gateway.end(), { code: 0, signal: null })
  t.match(await cpe('ip', 'rule', 'show'), theirs, 'also at our end')
})

/** Rules, and what is said of LTE. */
const rulesAgainstLte: [rule: string, reason: RegExp][] = [
  [
    'prohibit from 10.2.0.2 pref 77',
    /the kernel has no way for what goes from 10\.2\.0\.2 to HAG 203\.0\.113\.3, .*77: from 10\.2\.0\.2 prohibit/,
  ],
]
if (!bindsToDevices) {
  const reason =
    /what goes from 10\.2\.0\.2 to HAG 203\.0\.113\.3 would leave by dsl, because of the rule \\"270: from all lookup 52/
  rulesAgainstLte.push(['from all lookup 52 pref 270', reason])
}

t.test('a WAN that rules prohibit or, before Linux 6.7, lead to another one', { skip: needsRoot }, async (t) => {
  const { world, run, download } = await worldOf(t)
  await run('ip route add throw 192.168.1.0/24 table 52', 'ip route add default via 10.1.0.1 dev dsl table 52')
  await world.startHag()
  const gateway = await world.startGateway()
  await Promise.all(['dsl', 'lte'].map((wan) => gateway.waitFor(new RegExp(`WAN ${wan} is up`))))
  const endpoints = (count: number) =>
    settle(
      () => world.endpoints(),
      ({ length }) => length === count,
      5000,
    )
  for (const [rule, reason] of rulesAgainstLte) {
    await run(`ip rule add ${rule}`)
    await gateway.waitFor(new RegExp(`WAN lte is down: ${reason.source}`))
    t.same(await endpoints(1), ['dsl'])
    t.same(await download(), ['dsl'], rule)
    await run(`ip rule del ${rule}`)
    t.same(await endpoints(2), ['dsl', 'lte'])
  }
  t.same(await gateway.end(), { code: 0, signal: null })
})

/** What mwan3 2.11 makes for two WANs that share the load, without its sets. */
const mwan3 = {
  mangle: [
    '*mangle',
    ...['hook', 'ifaces_in', 'connected', 'rules'].map((name) => `:mwan3_${name} - [0:0]`),
    '-A PREROUTING -j mwan3_hook',
    '-A OUTPUT -j mwan3_hook',
    '-A mwan3_hook -m mark --mark 0/0x3f00 -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00',
    ...['ifaces_in', 'connected', 'rules'].map((name) => `-A mwan3_hook -m mark --mark 0/0x3f00 -j mwan3_${name}`),
    '-A mwan3_hook -j CONNMARK --save-mark --nfmask 0x3f00 --ctmask 0x3f00',
    '-A mwan3_hook -m mark ! --mark 0x3f00/0x3f00 -j mwan3_connected',
    '-A mwan3_ifaces_in -i dsl -m mark --mark 0/0x3f00 -j MARK --set-xmark 0x100/0x3f00',
    '-A mwan3_ifaces_in -i lte -m mark --mark 0/0x3f00 -j MARK --set-xmark 0x200/0x3f00',
    ...['192.168.1.0/24', '10.1.0.0/24', '10.2.0.0/24', '127.0.0.0/8', '224.0.0.0/3'].map(
      (network) => `-A mwan3_connected -d ${network} -j MARK --set-xmark 0x3f00/0x3f00`,
    ),
    '-A mwan3_rules -m mark --mark 0/0x3f00 -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x200/0x3f00',
    '-A mwan3_rules -m mark --mark 0/0x3f00 -j MARK --set-xmark 0x100/0x3f00',
    'COMMIT',
  ],
  routing: ['dsl', 'lte'].flatMap((device, index) => {
    const id = index + 1
    return [
      `route add 192.168.1.0/24 dev br0 table ${id}`,
      `route add 10.${id}.0.0/24 dev ${device} table ${id}`,
      `route add default via 10.${id}.0.1 dev ${device} table ${id}`,
      `rule add iif ${device} lookup ${id} pref 100${id}`,
      `rule add fwmark 0x${id}00/0x3f00 lookup ${id} pref 200${id}`,
      `rule add fwmark 0x${id}00/0x3f00 unreachable pref 300${id}`,
    ]
  }),
}

t.test('the rules and marks of mwan3', { skip: needsRoot }, async (t) => {
  // Over Ethernet to a router that answers for its own address only: what is sent by a wrong route finds no neighbour.
  const world = await World.create(t, { shaped: false })
  const [cpe, hag] = [world.execute('cpe'), world.execute('hag')]
  await hag('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1')
  for (const wan of ['dsl', 'lte']) {
    await hag(...`tc qdisc replace dev ${wan} root tbf rate 20mbit burst 20kb limit 60kb`.split(' '))
  }
  await cpe('sh', '-c', `ip -batch - <<'END'\n${mwan3.routing.join('\n')}\nEND`)
  await cpe('sh', '-c', `iptables-restore --noflush <<'END'\n${mwan3.mangle.join('\n')}\nEND`)
  const warning =
    /the rule \\?"2001: from all fwmark 0x100\/0x3f00 lookup 1\\?" is in front of ours, and mangle OUTPUT sets such marks/
  const behind = { rule_priority: 5800 }
  t.match(await cpe(...bondsocks('plan', '-c', world.config('gateway', behind))), warning)
  const early = await world.startGateway(behind)
  await early.waitFor(warning)
  t.same(await early.end(), { code: 0, signal: null })

  await world.startHag()
  const gateway = await world.startGateway()
  await Promise.all(['dsl', 'lte'].map((wan) => gateway.waitFor(new RegExp(`WAN ${wan} is up`))))
  for (let turn = 0; turn < 6; turn++) {
    const { wans, outcome } = await world.downloadByWans(3_000_000)
    t.match(outcome, { intact: true, error: undefined })
    t.same(wans, ['dsl', 'lte'], 'bonded, whichever WAN mwan3 would take')
  }
  await hag('iptables', '-t', 'raw', '-I', 'PREROUTING', '-i', 'dsl', '-j', 'DROP')
  await gateway.waitFor(/WAN dsl is down/)
  for (let turn = 0; turn < 3; turn++) {
    const { wans, outcome } = await world.downloadByWans(1_000_000)
    t.match(outcome, { intact: true, error: undefined })
    t.same(wans, ['lte'], 'the other one serves alone')
  }
  t.notMatch(gateway.output, warning)
  t.same(await gateway.end(), { code: 0, signal: null })
})
