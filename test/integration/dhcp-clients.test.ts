/** Beside Debian's DHCP clients: leases, default routes of one metric, renewals, providers that renumber, releases. */
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsPrograms, needsRoot } from '../support/namespaces.js'
import type { Program } from '../support/process.js'

interface Client {
  /** It gives both default routes the same metric, so the kernel refuses the second one. Then its lease tells the gateway. */
  hasOneMetric: boolean
  /** It writes down no lease, so the config must name the gateway of the second WAN. */
  keepsNoLease?: boolean
  argv(device: string): string[]
  release(world: World, device: string, client: Program): Promise<unknown>
}

const files = (device: string) => ['-pf', `/run/dhclient.${device}.pid`, '-lf', `/var/lib/dhcp/dhclient.${device}.leases`]

const clients: Record<string, Client> = {
  dhclient: {
    hasOneMetric: true,
    argv: (device) => ['dhclient', '-4', '-d', ...files(device), device],
    release: (world, device) => world.execute('cpe')('dhclient', '-4', '-r', ...files(device), device),
  },
  dhcpcd: {
    hasOneMetric: false,
    // Without the seconds that it waits for others to object to its address.
    argv: (device) => ['dhcpcd', '-4', '-B', '--noarp', device],
    release: (world, device) => world.execute('cpe')('dhcpcd', '-4', '-k', device),
  },
  udhcpc: {
    hasOneMetric: true,
    keepsNoLease: true,
    argv: (device) => ['udhcpc', '-f', '-i', device, '-s', '/etc/udhcpc/default.script'],
    release: async (_, __, client) => client.kill('SIGUSR2'),
  },
}

/** dhclient writes its lease down behind its script and all of this machine's hooks, and nothing that the kernel reports comes after that. */
const slowHook = `echo 'case $reason in BOUND) sleep 1 ;; esac' >/etc/dhcp/dhclient-exit-hooks.d/slow`

/** A provider's server on both lines, which asks for a renewal after eight seconds or so. */
async function startServer(world: World, network: number): Promise<Program> {
  const ranges = [1, 2].map((line) => `10.${line}.${network}`)
  const server = world.startOther(
    'hag',
    ...['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--port=0', '--no-ping', '--user=root', '--pid-file='],
    ...['--dhcp-authoritative', '--log-facility=-', `--dhcp-leasefile=${world.file(`leases${network}`, '')}`],
    ...['--interface=dsl', '--interface=lte', '--dhcp-option-force=58,8', '--dhcp-option-force=59,11'],
    ...ranges.map((net) => `--dhcp-range=${net}.100,${net}.200,255.255.255.0,2m`),
  )
  await server.waitFor(/IP range/)
  return server
}

for (const [name, { hasOneMetric, keepsNoLease, argv, release }] of Object.entries(clients)) {
  t.test(name, { skip: needsRoot || needsPrograms('dnsmasq', name), timeout: 90_000 }, async (t) => {
    // Ethernet, which DHCP needs, with lines slow enough that one of them is not enough.
    const world = await World.create(t, { shaped: false })
    const [cpe, hag] = [world.execute('cpe'), world.execute('hag')]
    for (const wan of ['dsl', 'lte']) {
      await cpe('ip', 'address', 'flush', 'dev', wan)
      await hag(...`tc qdisc replace dev ${wan} root tbf rate 20mbit burst 20kb limit 60kb`.split(' '))
    }
    await world.ownFiles('cpe', slowHook)
    await world.startHag()
    const server = await startServer(world, 0)
    const lte = keepsNoLease ? { gateway: '10.2.0.1' } : {}
    const wans = ['dsl', 'lte'].map((name) => ({ name, interface: name, ...(name === 'lte' ? lte : {}) }))
    const gateway = await world.startGateway({ wans, drain_seconds: 0 })
    const download = async (bytes = 3_000_000) => {
      const { wans, outcome } = await world.downloadByWans(bytes)
      t.match(outcome, { intact: true, error: undefined })
      return wans
    }
    const areJoined = (count: number) =>
      settle(
        () => world.endpoints(),
        ({ length }) => length === count,
      )
    const defaults = async () => (await cpe('ip', '-4', 'route', 'show', 'default')).trim().split('\n')

    const started = new Map<string, Program>()
    for (const wan of ['dsl', 'lte']) {
      started.set(wan, world.startOther('cpe', ...argv(wan)))
      await server.waitFor(new RegExp(`DHCPACK\\(${wan}\\)`))
      // Before the first renewal, and before the next look.
      await gateway.waitFor(new RegExp(`WAN ${wan} is up`), 5000)
      await areJoined(started.size)
      t.same(await download(), [...started.keys()], 'the lease is used')
    }
    t.equal((await defaults()).length, hasOneMetric ? 1 : 2)

    const before = gateway.output
    const renewals = (wan: string) => server.output.split(`DHCPACK(${wan})`).length
    const then = ['dsl', 'lte'].map(renewals)
    for (const client of started.values()) if (name === 'udhcpc') client.kill('SIGUSR1')
    t.same(await download(15_000_000), ['dsl', 'lte'], 'renewals disturb nothing')
    const areRenewed = await settle(
      () => ['dsl', 'lte'].every((wan, at) => renewals(wan) > (then[at] ?? 0)),
      (isSo) => isSo,
    )
    t.ok(areRenewed)
    t.equal(gateway.output, before, 'and nothing is said')

    // DSL of all clients; LTE where its gateway is learned.
    const moving = keepsNoLease ? ['dsl'] : ['dsl', 'lte']
    for (const wan of moving) await hag('ip', 'address', 'add', `10.${wan === 'dsl' ? 1 : 2}.7.1/24`, 'dev', wan)
    await server.end()
    const other = await startServer(world, 7)
    for (const wan of moving) if (name === 'udhcpc') started.get(wan)?.kill('SIGUSR1')
    for (const wan of moving) {
      await other.waitFor(new RegExp(`DHCPNAK\\(${wan}\\)[\\s\\S]*DHCPACK\\(${wan}\\)`), 20_000)
    }
    for (const wan of moving) {
      const isMoved = new RegExp(`WAN ${wan} is down[^]*WAN ${wan} is up`)
      await settle(
        () => gateway.output.slice(before.length),
        (text) => isMoved.test(text),
      )
    }
    await areJoined(2)
    t.same(await download(), ['dsl', 'lte'], 'the new addresses are used')

    await release(world, 'lte', started.get('lte') as Program)
    await areJoined(1)
    t.match(gateway.output.slice(gateway.output.lastIndexOf('WAN lte is ')), /^WAN lte is down: /)
    t.same(await download(), ['dsl'], 'the other one carries alone')
    t.same(await gateway.end(), { code: 0, signal: null })
    t.match((await defaults()).join(), /default via 10\.1\.7\.1 dev dsl/, "what is the client's stays")
    t.match(await world.client.call('talk', { host: world.lab.addresses.server, port: ports.greeter }, '', 1), {
      received: /^220/,
    })
  })
}
