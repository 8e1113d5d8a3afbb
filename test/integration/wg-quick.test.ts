/** Beside wg-quick, with a tunnel that takes all that the machine sends: started before and after the gateway, and as its only WAN. */
import t from 'tap'
import { startAgent } from '../support/agent.js'
import { ports, settle, World } from '../support/hybrid.js'
import { needsPrograms, needsRoot, needsTun } from '../support/namespaces.js'
import { bondsocks } from '../support/process.js'

const mirror = 9010
/** Beside the HAG, as many have it. */
const endpoint = '203.0.113.3:51820'
/** wireguard-go stays, with what it was given as its output. */
const up = ['sh', '-c', 'wg-quick up wg0 >/run/wg-quick.log 2>&1 || { cat /run/wg-quick.log >&2; exit 1; }']

/** Without the kernel's WireGuard, wg-quick takes wireguard-go. */
t.test('wg-quick', { skip: needsRoot || needsTun || needsPrograms('wg-quick', 'wireguard-go'), timeout: 90_000 }, async (t) => {
  const world = await World.create(t, { shaped: false })
  for (const host of ['cpe', 'hag']) await world.ownFiles(host, 'mkdir -p /etc/wireguard')
  const [cpe, hag] = [world.execute('cpe'), world.execute('hag')]
  for (const wan of ['dsl', 'lte']) await hag(...`tc qdisc add dev ${wan} root tbf rate 20mbit burst 20kb limit 60kb`.split(' '))
  const keyOf = async () => {
    const [own = '', shown = ''] = (await cpe('sh', '-c', 'k=$(wg genkey); echo $k; echo $k | wg pubkey')).split('\n')
    return { own, shown }
  }
  const [home, far] = [await keyOf(), await keyOf()]
  const configs = {
    cpe: `[Interface]
Address = 10.8.0.2/24
PrivateKey = ${home.own}
[Peer]
PublicKey = ${far.shown}
Endpoint = ${endpoint}
AllowedIPs = 0.0.0.0/0, ::/0`,
    hag: `[Interface]
Address = 10.8.0.1/24
PrivateKey = ${far.own}
ListenPort = 51820
[Peer]
PublicKey = ${home.shown}
AllowedIPs = 10.8.0.2/32`,
  }
  for (const [host, text] of Object.entries(configs)) {
    await world.execute(host)('sh', '-c', `umask 077; echo '${text}' >/etc/wireguard/wg0.conf`)
  }
  await hag(...up)
  await world.server.call('mirror', mirror)
  const host = world.lab.addresses.server
  const own = await startAgent(t, { argv: (...argv) => world.argv('cpe', argv) })
  const seenOf = async (who: typeof own) => (await who.call('talk', { host, port: mirror })).received.trim()
  const overBoth = async (what: string) => {
    const { wans, outcome } = await world.downloadByWans(3_000_000)
    t.match(outcome, { intact: true, error: undefined }, what)
    t.same(wans, ['dsl', 'lte'], what)
    t.equal(await seenOf(world.client), '198.51.100.1', 'by the HAG')
    t.equal(await seenOf(own), '10.8.0.2', 'while what the machine itself sends goes into the tunnel')
  }
  const rules = () => cpe('ip', 'rule', 'show')
  await world.startHag()

  const before = await rules()
  const gateway = await world.startGateway({ drain_seconds: 0 })
  await cpe(...up)
  const warning =
    /the rule \\?"\d+: not from all fwmark 0xca6c lookup 51820\\?" leads what this machine sends over wg0, which is no WAN/
  await gateway.waitFor(warning)
  await overBoth('a tunnel that came later')
  const withTunnel = await rules()
  t.same(await gateway.end(), { code: 0, signal: null })
  t.equal(
    (await rules()).replace(/.*(51820|suppress_prefixlength 0).*\n/g, ''),
    before,
    "ours are gone, and only wg-quick's are left",
  )

  t.match(await cpe(...bondsocks('plan', '-c', world.config('gateway'))), warning)
  const second = await world.startGateway({ drain_seconds: 0 })
  await overBoth('a tunnel that was there before')
  t.equal((await rules()).match(/51820/g)?.length, withTunnel.match(/51820/g)?.length)
  await cpe('wg-quick', 'down', 'wg0')
  t.equal(
    await settle(
      () => seenOf(own),
      (one) => one === '10.1.0.2',
    ),
    '10.1.0.2',
    'its end is followed',
  )
  t.equal(await seenOf(world.client), '198.51.100.1')
  t.same(await second.end(), { code: 0, signal: null })
  t.equal(await rules(), before)

  await cpe(...up)
  const inside = await world.startGateway({ wans: [{ name: 'vpn', interface: 'wg0' }], drain_seconds: 0 })
  await inside.waitFor(/WAN vpn is up/)
  t.equal(await seenOf(world.client), '198.51.100.1', 'with the tunnel as the only WAN')
  await world.client.call('hold', { host, port: ports.echo }, 1)
  const atHag = await hag('ss', '-Htn', 'state', 'established', 'sport = :1080')
  t.match(atHag, /10\.8\.0\.2/)
  t.notMatch(atHag, /10\.[12]\.0\.2/, 'nothing goes around it')
  t.same(await inside.end(), { code: 0, signal: null })
  await cpe('wg-quick', 'down', 'wg0')
})
