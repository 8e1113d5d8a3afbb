/** Beside the firewalls of hosts: redirected connections arrive, nobody else gets to the port, and where they cannot arrive that is said. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { settle, sleep, World } from '../support/hybrid.js'
import { connect, createNamespace, Namespace, needsRoot } from '../support/namespaces.js'
import { bondsocks } from '../support/process.js'
import { snapshot, stillness } from '../support/snapshot.js'

const port = 9010
const udp = 443

t.test('hosts with firewalls of their own', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const { lan, lan6, server, server6 } = world.lab.addresses
  const cpe = world.execute('cpe')
  await world.server.call('mirror', port)
  for (const address of [server, server6]) await world.server.call('udpEcho', udp, address)
  await world.startHag()
  /** Where a server sees the client: the HAG's own addresses, or the masqueraded one of a WAN. */
  const talk = async (host = server) => (await world.client.call('talk', { host, port })).received.trim()
  const viaHag = { [server]: '198.51.100.1', [server6]: '2001:db8:5::1' }
  const bonded = async (t: Tap, what: string) => {
    for (const [host, seen] of Object.entries(viaHag)) t.equal(await talk(host), seen, `${what}: ${host}`)
  }
  /** What strangers at the WANs' far ends see of the redirector's port. */
  const strangers = async (t: Tap) => {
    for (const host of ['10.1.0.2', '10.2.0.2', 'fd00:1::2']) {
      const code = await world.execute('hag')('sh', '-c', `exec 2>&1; bash -c 'exec 3<>/dev/tcp/${host}/12345'; true`)
      t.match(code, /refused/, `${host} refuses at once`)
    }
    t.notMatch(await cpe('ss', '-tinH', 'sport', '=', ':12345'), /10\.[12]\.0\.1:/)
  }

  await t.test('iptables with INPUT DROP, and a rule that comes in front of ours later', async (t) => {
    await cpe('sh', '-c', inputDrop)
    const before = await stillness(cpe)
    const gateway = await world.startGateway({ log_level: 'debug' })
    await bonded(t, 'redirected connections are let in')
    await strangers(t)
    t.notMatch(gateway.output, /"refused"|not redirected by iptables|12345 .*10\.1\.0\.1/)
    await cpe('iptables', '-I', 'INPUT', '-i', 'br0', '-p', 'tcp', '-j', 'REJECT')
    t.equal(await settle(talk, (seen) => seen === viaHag[server], 15_000), viaHag[server], 'and again in front of others')
    await cpe('iptables', '-D', 'INPUT', '-i', 'br0', '-p', 'tcp', '-j', 'REJECT')
    await gateway.end()
    t.equal(await snapshot(cpe), before, 'and nothing is left')
    await cpe('sh', '-c', 'for p in iptables ip6tables; do $p -P INPUT ACCEPT; $p -F INPUT; done')
  })

  await t.test(
    'the other flavour of iptables',
    { skip: (await has(cpe, 'iptables-legacy')) ? false : 'no legacy' },
    async (t) => {
      await cpe('iptables-legacy', '-A', 'INPUT', '-i', 'br0', '-p', 'tcp', '-j', 'DROP')
      const legacy = await cpe('iptables-legacy', '-S')
      const gateway = await world.startGateway()
      t.equal(await talk(), viaHag[server])
      await gateway.end()
      t.equal(await cpe('iptables-legacy', '-S'), legacy)
      await cpe('iptables-legacy', '-F')
    },
  )

  await t.test("nft's own chain drops them: they go direct, and the log says what lets them in", async (t) => {
    await cpe('nft', nftDrop)
    const gateway = await world.startGateway()
    const first = world.client.call('talk', { host: server, port })
    const mend = 'nft insert rule inet host input tcp dport 12345 ct status dnat accept'
    const [line] = await gateway.waitFor(/a firewall of this machine drops the LAN's redirected IPv4[^\n]*/, 20_000)
    t.match(line, mend)
    t.equal((await first).received.trim(), '10.1.0.2', 'even the first one gets through')
    t.equal(await talk(), '10.1.0.2', 'and so do all that follow')
    await gateway.end()

    const rejecting = await world.startGateway({ on_hag_down: 'reject' })
    const waiting = world.client.call('talk', { host: server, port })
    await rejecting.waitFor(/a firewall of this machine drops [^\n]*, so they are not served \(on_hag_down: reject\)/, 20_000)
    t.equal((await waiting).received, '', 'none goes direct')
    t.equal(await talk(), '')
    await cpe(...mend.split(' '))
    t.equal(await settle(talk, (seen) => seen !== '', 15_000), viaHag[server], 'with that rule they are bonded, soon')
    await rejecting.end()
    await cpe('nft', 'delete', 'table', 'inet', 'host')
  })

  await t.test('a table ip nat made with nft, which iptables cannot list', async (t) => {
    const ruleset = async () => (await cpe('nft', 'list', 'ruleset')).replace(/packets \d+ bytes \d+/g, '')
    // The lab's own, by nft in the place of iptables.
    await cpe('nft', 'delete', 'table', 'ip', 'nat')
    await cpe('nft', nftNat)
    t.match(await cpe('sh', '-c', 'iptables-save -t nat 2>&1'), /incompatible/)
    const [before, legacy] = [await ruleset(), await cpe('iptables-legacy-save')]
    const gateway = await world.startGateway()
    await bonded(t, 'redirected')
    await gateway.end('SIGKILL')
    t.equal(await settle(talk, (seen) => seen !== '', 5000), '10.1.0.2', 'nobody is redirected any more')
    await gateway.waitFor(/the rest is removed/)
    const rules = (text: string) => text.split('\n').filter((line) => /^-A|^:\w+ -/.test(line))
    t.equal(await ruleset(), before)
    t.same(rules(await cpe('iptables-legacy-save')), rules(legacy))

    // What was put there before the table became so.
    await cpe('nft', 'add chain ip nat BONDSOCKS; add rule ip nat PREROUTING iifname br0 meta l4proto tcp counter jump BONDSOCKS')
    t.match(await cpe(...bondsocks('remove')), /delete chain ip nat BONDSOCKS/)
    t.equal(await ruleset(), before)
  })

  await t.test('QUIC is refused where that is wanted, so that browsers take TCP', async (t) => {
    const quic = (host: string, port = udp) => world.client.call('datagram', { host, port })
    await (async () => {
      // A WAN by another name of its interface is counted as well.
      await cpe('ip', 'link', 'property', 'add', 'dev', 'dsl', 'altname', 'the-line-of-the-house')
      const volume_file = `${world.file('volume', '')}.json`
      const wans = [
        { name: 'dsl', interface: 'the-line-of-the-house', gateway: '10.1.0.1', monthly_gb: 1 },
        { name: 'lte', interface: 'lte' },
      ]
      const gateway = await world.startGateway({ wans, volume_file })
      t.match(await quic(server), { came: 'answer' }, 'by default it passes')
      t.equal(await talk(), viaHag[server])
      await sleep(2500)
      await gateway.end()
      t.match(readFileSync(volume_file, 'utf8'), /"dsl":[^}]*[1-9]\d{2,}/)
    })()
    const gateway = await world.startGateway({ quic: 'reject' })
    for (const host of [server, server6]) {
      const { came, ms } = await quic(host)
      t.equal(came, 'ECONNREFUSED', host)
      t.ok(ms < 200, `after ${ms} ms`)
    }
    for (const address of [server]) await world.server.call('udpEcho', 4443, address)
    t.match(await quic(server, 4443), { came: 'answer' }, 'other UDP passes')
    await gateway.end()
    t.match(await quic(server), { came: 'answer' }, 'and afterwards all of it')
  })

  await t.test('other networks behind the gateway are not redirected, also those that come later', async (t) => {
    const guest = await createNamespace(t, 'guest')
    await connect(
      { namespace: guest, device: 'eth0', addresses: ['192.168.20.2/24', 'fd00:20::2/64'] },
      {
        namespace: new Namespace(world.lab.hosts.cpe ?? ''),
        device: 'guest0',
        addresses: ['192.168.20.1/24', 'fd00:20::1/64'],
      },
    )
    for (const router of ['192.168.20.1', 'fd00:20::1']) await guest.exec('ip', 'route', 'add', 'default', 'via', router)
    await guest.exec('ip', 'address', 'add', '10.20.0.9/32', 'dev', 'lo')
    const modem = { argv: (...argv: string[]) => world.lab.argv('hag', argv) }
    const ourselves = { argv: (...argv: string[]) => world.lab.argv('cpe', argv) }
    const visitor = await startAgent(t, guest)
    await visitor.call('mirror', port)
    for (const place of [modem, ourselves]) await (await startAgent(t, place)).call('mirror', port)
    const gateway = await world.startGateway({ on_hag_down: 'reject' })
    t.equal(await talk('192.168.20.2'), lan)
    t.equal(await talk('fd00:20::2'), lan6)
    await gateway.waitFor(/not redirected, because the main table leads there by itself: [^"]*192\.168\.20\.0\/24 \(guest0\)/)
    await cpe('ip', 'route', 'add', '10.20.0.0/16', 'via', '192.168.20.2', 'dev', 'guest0')
    t.equal(
      await settle(
        () => talk('10.20.0.9'),
        (seen) => seen === lan,
        5000,
      ),
      lan,
      'a route that came later',
    )
    for (const [host, seen] of [
      ['10.1.0.2', '192.168.20.2'],
      ['10.2.0.2', '192.168.20.2'],
      ['fd00:1::2', 'fd00:20::2'],
    ] as const) {
      t.equal((await visitor.call('talk', { host, port })).received.trim(), seen, `the WAN's address ${host} answers a guest`)
    }
    t.equal(await talk(), viaHag[server] ?? '', 'the Internet still is')
    t.equal(await talk('10.1.0.1'), '10.1.0.2', "and the modem's own page is reached directly")
    await gateway.end()
  })
})

type Tap = Pick<typeof t, 'equal' | 'match' | 'notMatch'>

async function has(execute: (...argv: string[]) => Promise<string>, program: string): Promise<boolean> {
  return execute('sh', '-c', `command -v ${program} && ${program} -S`).then(
    () => true,
    () => false,
  )
}

const inputDrop = `for p in iptables ip6tables; do
  $p -A INPUT -i lo -j ACCEPT
  $p -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
  $p -A INPUT -i br0 -p tcp --dport 22 -j ACCEPT
  $p -P INPUT DROP
done
iptables -A INPUT -p icmp -j ACCEPT
ip6tables -A INPUT -p icmpv6 -j ACCEPT`

const nftDrop = `table inet host { chain input { type filter hook input priority filter; policy drop;
  ct state established,related accept; iifname lo accept; meta l4proto { icmp, icmpv6 } accept; tcp dport 22 accept; }; }`

const nftNat = `table ip nat {
  chain PREROUTING { type nat hook prerouting priority dstnat; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; oifname { "dsl", "lte" } masquerade; }
}`
