/** Gateways that the config leaves out, learned from the real kernel: default routes, point-to-point devices, router advertisements. */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { needsRoot, needsTun, type Scope } from '../support/namespaces.js'
import { gateway, netnsWorld } from '../support/network-world.js'
import { start } from '../support/process.js'

/** A gateway with a LAN and one WAN, `dsl`, of which the config says no more than the interface. */
async function home(scope: Scope) {
  const world = await netnsWorld(scope)
  const { namespace, kernel } = world
  await world.addDevice('br0')
  await world.addAddress('br0', '192.168.1.1/24')
  const config = gateway({
    wans: [{ name: 'dsl', interface: 'dsl' }],
    hags: [{ address: '203.0.113.3' }, { address: '2001:db8:3::3' }],
  })
  const network = new Network(kernel)
  const ip = (words: string) => namespace.exec('ip', ...words.split(' '))
  return {
    world,
    ip,
    network,
    /** What the gateway does after each change while it runs. */
    pass: () => network.apply(config),
    routeFrom: async (source: string) => ip(`route get ${source.includes(':') ? '2001:db8:3::3' : '203.0.113.3'} from ${source}`),
    endpoints: async () => (await ip('mptcp endpoint show')).split('\n').flatMap((line) => line.split(' ')[0] || []),
  }
}

/** What the kernel does a moment later. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200 && !(await isSo()); tries++) await new Promise((resolve) => setTimeout(resolve, 50))
}

t.test('from the default route, through a DHCP renewal with another gateway and address', { skip: needsRoot }, async (t) => {
  const { world, ip, network, pass, routeFrom, endpoints } = await home(t)
  await world.addDevice('dsl')
  t.match((await pass()).notes, ['WAN dsl is down: interface dsl has no address: start its DHCP or PPP client, or give it one'])
  await ip('address add 10.1.0.2/24 dev dsl')
  t.match((await pass()).notes, [/^WAN dsl is down: interface dsl has no default route or DHCP lease to learn the gateway from/])
  await ip('route add default via 10.1.0.1 dev dsl')
  t.same((await pass()).notes, [])
  t.match(await routeFrom('10.1.0.2'), /via 10\.1\.0\.1 dev dsl table 5800/)
  t.same(await endpoints(), ['10.1.0.2'])

  await ip('address delete 10.1.0.2/24 dev dsl')
  await ip('address add 10.1.0.77/24 dev dsl')
  await ip('route replace default via 10.1.0.9 dev dsl')
  t.same((await pass()).notes, [])
  t.match(await routeFrom('10.1.0.77'), /via 10\.1\.0\.9 dev dsl table 5800/)
  t.same(await endpoints(), ['10.1.0.77'])
  await ip('route replace default via 10.1.0.1 dev dsl')
  await pass()
  t.match(await routeFrom('10.1.0.77'), /via 10\.1\.0\.1 dev dsl table 5800/, 'another gateway alone')

  await ip('address add 10.5.0.2/24 dev dsl')
  t.match(
    (await pass()).steps.map(({ text }) => text),
    ['ip route add 10.5.0.0/24 dev dsl scope link src 10.1.0.77 proto 158 table 5800', /-A BONDSOCKS -d 10.5.0.0\/24 -j RETURN/],
    'a second address changes nothing but what is near',
  )
  await ip('address delete 10.1.0.77/24 dev dsl')
  await ip('route replace default via 10.5.0.1 dev dsl')
  await pass()
  t.match(await routeFrom('10.5.0.2'), /via 10\.5\.0\.1 dev dsl table 5800/, 'and takes over when the first goes')
  t.same(await endpoints(), ['10.5.0.2'])
  t.same((await pass()).steps, [])
  await network.remove()
  t.same(await endpoints(), [])
})

t.test(
  'where the kernel refused the route of a DHCP client: from another table, or from its lease',
  { skip: needsRoot },
  async (t) => {
    const { world, ip, network } = await home(t)
    for (const [device, address] of Object.entries({ dsl: '10.1.0.2/24', lte: '10.2.0.2/24' })) {
      await world.addDevice(device)
      await world.addAddress(device, address)
    }
    const config = gateway({ wans: ['dsl', 'lte'].map((name) => ({ name, interface: name })) })
    const pass = async () => (await network.apply(config)).notes
    const routeFrom = () => ip('route get 203.0.113.3 from 10.2.0.2')
    await ip('route add default via 10.1.0.1 dev dsl')
    await t.rejects(ip('route add default via 10.2.0.1 dev lte'), /File exists/, 'as both clients try it')
    t.match(await pass(), [/^WAN lte is down: interface lte has no default route or DHCP lease to learn the gateway from/])
    await ip('route add default via 10.2.0.7 dev lte table 100')
    t.same(await pass(), [])
    t.match(await routeFrom(), /via 10\.2\.0\.7 dev lte table 5801/)
    await ip('route flush table 100')
    world.kernel.leases = [
      { address: '10.2.0.2', gateway: '10.2.0.3' },
      { address: '10.2.0.2', gateway: '10.2.0.1' },
      { address: '10.2.0.99', gateway: '10.2.0.98' },
    ]
    t.same(await pass(), [])
    t.match(await routeFrom(), /via 10\.2\.0\.1 dev lte table 5801/, 'the latest of its address')
  },
)

t.test('what the default route says of its line comes along', { skip: needsRoot }, async (t) => {
  const { world, ip, network, pass } = await home(t)
  await world.addDevice('dsl')
  await world.addAddress('dsl', '10.1.0.2/24')
  const metrics =
    'mtu 1300 window 9000 rtt 100ms rttvar 40ms advmss 1200 reordering 5 hoplimit 33 initcwnd 20 initrwnd 30 quickack 1'
  await ip(`route add default via 10.1.0.1 dev dsl ${metrics} rto_min 300ms features ecn congctl reno`)
  await ip('-6 address add 2001:db8:1::2/64 dev dsl nodad')
  await ip('-6 route add default via fe80::1 dev dsl mtu 1400 hoplimit 21')
  await pass()
  const shown = async (words: string) => (await ip(`${words} route show table 5800 default`)).replace(/ (src|proto) \S+/g, '')
  for (const words of [
    'mtu 1300 ',
    'advmss 1200 ',
    'rto_min lock 300ms',
    'features ecn',
    'congctl reno',
    'initcwnd 20',
    'hoplimit 33',
  ])
    t.match(await shown('-4'), words)
  const own = async (table: string) => (await ip(`-d route show table ${table} default`)).match(/mtu.*/)?.[0]
  t.equal(await own('5800'), await own('main'), 'all of it')
  t.match(await shown('-6'), /mtu 1400 hoplimit 21/)
  t.same((await pass()).steps, [], 'the kernel prints it as we say it')
  await ip('route replace default via 10.1.0.1 dev dsl mtu lock 1280')
  await pass()
  t.match(await ip('route get 203.0.113.3 from 10.1.0.2'), /mtu 1280/)
  t.same((await pass()).steps, [])
  t.equal(await world.namespace.exec('sysctl', '-n', 'net.ipv4.tcp_mtu_probing'), '1\n', 'and smaller packets are tried')
  await network.remove()
  t.equal(await world.namespace.exec('sysctl', '-n', 'net.ipv4.tcp_mtu_probing'), '0\n')
})

t.test('which of several addresses, and one that two modems give', { skip: needsRoot }, async (t) => {
  const { world, ip, network, pass, endpoints } = await home(t)
  await world.addDevice('dsl')
  for (const address of ['10.9.0.2/24', '10.1.0.2/24', '10.1.0.3/24']) await world.addAddress('dsl', address)
  await ip('route add default via 10.1.0.1 dev dsl src 10.9.0.2')
  await pass()
  t.same(await endpoints(), ['10.9.0.2'], 'the one that the default route names')
  await ip('route replace default via 10.1.0.1 dev dsl')
  await pass()
  t.same(await endpoints(), ['10.1.0.2'], "the one in the gateway's network")
  const chosen = (more: object) => gateway({ wans: [{ name: 'dsl', interface: 'dsl', ...more }] })
  await network.apply(chosen({ address: '10.1.0.3' }))
  t.same(await endpoints(), ['10.1.0.3'], 'the one that the config names')
  const absent = await network.apply(chosen({ address: '10.1.0.4' }))
  t.ok(absent.notes.includes('WAN dsl is down: interface dsl has no address 10.1.0.4: give it that one, or correct "address"'))

  const modems = ['lte', 'lte2']
  for (const name of modems) {
    await world.addDevice(name)
    await world.addAddress(name, '192.168.8.100/24')
  }
  const twins = gateway({ wans: modems.map((name) => ({ name, interface: name, gateway: '192.168.8.1' })) })
  const { notes } = await network.apply(twins)
  t.match(notes, [
    /^WAN lte2 is down: its address 192\.168\.8\.100 is another WAN's too, .*: give one of the modems another network/,
  ])
  t.same(await endpoints(), ['192.168.8.100'], 'the first one works')
  t.match(await ip('route get 203.0.113.3 from 192.168.8.100'), /via 192\.168\.8\.1 dev lte /)
  t.same((await network.apply(twins)).steps, [])
})

t.test('none on a point-to-point device, which goes and comes back with another address', { skip: needsRoot }, async (t) => {
  const { world, ip, pass, routeFrom, endpoints } = await home(t)
  for (const address of ['10.64.0.2', '10.64.0.3']) {
    await world.addDevice('dsl')
    await ip('link set dsl arp off')
    await ip(`address add ${address} peer 10.64.0.1/32 dev dsl`)
    t.same((await pass()).notes, [])
    t.match(await routeFrom(address), /203\.0\.113\.3 from 10\.64\.0\.\d dev dsl table 5800/)
    t.match(
      await ip('route get 203.0.113.3'),
      new RegExp(`203.0.113.3 dev dsl .*src ${address}`),
      'what is not redirected follows',
    )
    t.same(await endpoints(), [address])
    t.same((await pass()).steps, [])
    await world.removeDevice('dsl')
    t.match((await pass()).notes, [/^WAN dsl is down: interface dsl does not exist/])
    t.notMatch(await ip('rule show'), /lookup 5800/)
  }
})

const advertise = `
  use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);
  my ($device, $lifetime) = @ARGV;
  open(my $file, '<', "/sys/class/net/$device/ifindex") or die $!;
  my $index = <$file>;
  socket(my $socket, PF_INET6, SOCK_RAW, 58) or die $!;
  setsockopt($socket, 41, 17, pack('i', $index)) or die $!;
  setsockopt($socket, 41, 18, pack('i', 255)) or die $!;
  my $prefix = pack('CCCCNNN', 3, 4, 64, 0xc0, 3600, 3600, 0) . inet_pton(AF_INET6, '2001:db8:7::');
  my $message = pack('CCnCCnNN', 134, 0, 0, 64, 0, $lifetime, 0, 0) . $prefix;
  send($socket, $message, 0, pack_sockaddr_in6(0, inet_pton(AF_INET6, 'ff02::1'), $index)) or die $!;
`

function lacksPerl(): string | false {
  try {
    execFileSync('perl', ['-e', 'use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6); inet_pton(AF_INET6, "::")'], {
      stdio: 'ignore',
    })
    return false
  } catch {
    return 'needs perl, to send router advertisements'
  }
}

t.test(
  'from router advertisements, also after we made a router of the machine',
  { skip: needsRoot || lacksPerl() },
  async (t) => {
    const { world, ip, network, pass, routeFrom, endpoints } = await home(t)
    // The test's own kernels have no addresses that come by themselves; this one is about them.
    await world.namespace.exec('sysctl', '-qw', 'net.ipv6.conf.default.addr_gen_mode=0')
    await world.addDevice('dsl')
    const send = async (lifetime: number) => world.far.exec('perl', '-e', advertise, 'dsl', String(lifetime))
    const hasDefault = async () => (await ip('-6 route show default proto ra')).includes('via fe80:')
    await until(async () => (await ip('-6 address show dev dsl scope link')).includes('fe80:'))
    // One that comes while the device is not ready yet is lost.
    const learned = () =>
      until(async () => {
        await send(1800)
        return hasDefault()
      })
    await learned()
    const [, address = ''] = (await ip('-6 address show dev dsl scope global')).match(/inet6 (2001:db8:7:\S+)\/64/) ?? []
    t.match(address, /^2001:db8:7:/)
    const plan = await pass()
    t.ok(plan.steps.some(({ text }) => text === 'sysctl -w net.ipv6.conf.dsl.accept_ra=2'))
    t.match(await routeFrom(address), /via fe80:\S+ dev dsl table 5800/)
    t.same(await endpoints(), [address])
    t.ok(await hasDefault(), 'the advertised route is still there')
    await send(1800)
    t.same((await pass()).steps, [])

    await send(0)
    await until(async () => !(await hasDefault()))
    t.notOk(await hasDefault(), 'and goes when the router says so')
    t.match(
      (await pass()).notes.join(),
      /interface dsl has no default route to learn the gateway from: if none comes, set "gateway6"/,
    )
    await learned()
    await pass()
    t.match(await routeFrom(address), /via fe80:\S+ dev dsl table 5800/, 'and is learned again')
    await network.remove()
    t.notMatch(await ip('-6 route show table all'), /table 5800/)
  },
)

/** A modem without a link layer, whose router answers who asks, and says nothing of itself: its device is made and up at once. */
const modem = `
  use Socket qw(:DEFAULT inet_pton);
  my ($device) = @ARGV;
  open(my $tun, '+<', '/dev/net/tun') or die $!;
  my $request = pack('a16sx22', $device, 0x1001);
  ioctl($tun, 0x400454ca, $request) or die $!;
  system("ip link set $device up") == 0 or die;
  while (sysread($tun, my $packet, 2048)) {
    # A router solicitation.
    next if unpack('x40C', $packet) != 133;
    my ($from, $to) = (inet_pton(AF_INET6, 'fe80::1'), inet_pton(AF_INET6, 'ff02::1'));
    my $prefix = pack('CCCCNNN', 3, 4, 64, 0xc0, 3600, 3600, 0) . inet_pton(AF_INET6, '2001:db8:7::');
    my $message = pack('CCnCCnNN', 134, 0, 0, 64, 0, 1800, 0, 0) . $prefix;
    my $sum = unpack('%32n*', $from . $to . pack('NN', length $message, 58) . $message);
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    substr($message, 2, 2) = pack('n', ~$sum & 0xffff);
    syswrite($tun, pack('NnCC', 0x60000000, length $message, 58, 255) . $from . $to . $message);
  }
`

t.test(
  'from the answer to the one question that a new device asks as soon as it is up',
  { skip: needsRoot || needsTun || lacksPerl() },
  async (t) => {
    const { world, ip, network, pass } = await home(t)
    const { namespace } = world
    await namespace.exec('sysctl', '-qw', 'net.ipv6.conf.default.addr_gen_mode=0')
    await world.addAddress('br0', 'fd00:1::1/64')
    const listening = async (name: string) => (await namespace.exec('sysctl', '-n', `net.ipv6.conf.${name}.accept_ra`)).trim()
    await pass()
    const { pid } = start(t, namespace.argv('perl', '-e', modem, 'dsl'))
    const isLearned = async () => (await ip('-6 route show default proto ra')).includes('via fe80::1')
    await until(isLearned)
    t.ok(await isLearned())
    await world.addDevice('other')
    const { wans } = await pass()
    t.match(wans, [{ name: 'dsl', address6: /^2001:db8:7:/ }])
    t.same((await pass()).steps, [])
    await network.remove()
    t.same(await Promise.all(['default', 'dsl', 'other', 'br0'].map(listening)), ['1', '1', '1', '1'], 'all is as it was')
    process.kill(pid)
  },
)
