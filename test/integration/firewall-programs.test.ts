/** Beside ufw and firewalld on the gateway, with both flavours of iptables: the LAN is redirected, also after they reload. */
import t from 'tap'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsPrograms, needsRoot } from '../support/namespaces.js'
import type { Program } from '../support/process.js'

const mirror = 9010

interface Firewall {
  programs: string[]
  /** Commands of a shell that make its settings. */
  settings: string
  start(world: World): Promise<Program | undefined>
  reload: string
  stop(world: World, program: Program | undefined): Promise<unknown>
}

/** In the place of the flavour that the system has chosen. */
const flavoured = (flavour: string) =>
  ['iptables', 'ip6tables']
    .flatMap((name) => ['', '-save', '-restore'].map((end) => `/etc/alternatives/${name}${end} ${name}-${flavour}${end}`))
    .map((words) => `set -- ${words}; ln -sf "$(command -v $2)" $1`)
    .join('\n')

const ufw = (flavour: string): Firewall => ({
  programs: ['ufw', `iptables-${flavour}`],
  settings: flavoured(flavour),
  start: (world) =>
    world
      .execute('cpe')('ufw', '--force', 'enable')
      .then(() => undefined),
  reload: 'ufw reload',
  stop: (world) => world.execute('cpe')('ufw', 'disable'),
})

const firewalld = (backend: string): Firewall => ({
  programs: ['firewalld', 'dbus-daemon', 'iptables-nft'],
  settings: `${flavoured('nft')}
    sed -i 's/^FirewallBackend=.*/FirewallBackend=${backend}/' /etc/firewalld/firewalld.conf
    mkdir -p /run/dbus`,
  async start(world) {
    const bus = world.startOther('cpe', 'dbus-daemon', '--system', '--nofork', '--nopidfile', '--print-address')
    await bus.waitFor(/unix:/)
    const program = world.startOther('cpe', 'firewalld', '--nofork', '--nopid')
    await settle(
      () =>
        world
          .execute('cpe')('firewall-cmd', '--state')
          .catch(() => ''),
      (text) => text.includes('running'),
    )
    return program
  },
  reload: 'firewall-cmd --reload',
  stop: async (_, program) => program?.end(),
})

const firewalls: Record<string, Firewall> = {
  'ufw, iptables-nft': ufw('nft'),
  'ufw, iptables-legacy': ufw('legacy'),
  'firewalld, nftables': firewalld('nftables'),
  'firewalld, iptables': firewalld('iptables'),
}

t.test('firewall programs', { skip: needsRoot, timeout: 170_000 }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const hag = world.execute('hag')
  for (const wan of ['dsl', 'lte']) await hag(...`tc qdisc add dev ${wan} root tbf rate 20mbit burst 20kb limit 60kb`.split(' '))
  const host = world.lab.addresses.server
  await world.server.call('mirror', mirror)
  await world.startHag()
  /** A connection that begins while a firewall reloads may go nowhere. */
  const seen = async () => {
    const talk = world.client.call('talk', { host, port: mirror }).then(({ received }) => received.trim())
    return Promise.race([talk, sleep(2000).then(() => 'nothing')])
  }
  const strangers = () => hag('sh', '-c', "timeout 2 bash -c 'exec 3<>/dev/tcp/10.1.0.2/12345' 2>&1 || echo refused")

  for (const [name, { programs, settings, start, reload, stop }] of Object.entries(firewalls)) {
    await t.test(name, { skip: needsPrograms(...programs) }, async (t) => {
      await world.ownFiles('cpe', settings)
      const program = await start(world)
      const isBonded = async (what: string) => {
        t.equal(await settle(seen, (one) => one === '198.51.100.1'), '198.51.100.1', what)
        t.match(await strangers(), 'refused', 'and nobody else gets to the port')
      }
      const gateway = await world.startGateway({ drain_seconds: 0 })
      await isBonded('redirected connections are let in')
      const download = world.client.call('download', { host, port: ports.source, bytes: 12_000_000 })
      await world.execute('cpe')(...reload.split(' '))
      await isBonded('also after a reload')
      t.match(await download, { intact: true, error: undefined }, 'which disturbs no connection')
      t.notMatch(gateway.output, /a firewall of this machine drops/)
      t.same(await gateway.end(), { code: 0, signal: null })
      t.notMatch(await world.execute('cpe')('sh', '-c', 'iptables-save; ip6tables-save; nft list ruleset'), /BONDSOCKS/)
      await stop(world, program)
    })
  }
})
