/** A carrier's NAT that forgets what idles: connections stay, because they say something in time. */
import t from 'tap'
import { ports, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'

const memorySeconds = 4

t.test('idle connections outlive the memory of the NATs on their way', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { gateway: { keepalive_seconds: 2, prepared_connections: 0 } })
  const hag = world.execute('hag')
  const text = ['input', 'output']
    .map(
      (hook) =>
        `  chain ${hook} {\n    type filter hook ${hook} priority 0\n    tcp sport 1080 ct state invalid drop\n    tcp dport 1080 ct state invalid drop\n  }\n`,
    )
    .join('')
  await hag('sh', '-c', `nft -f - <<'END'\ntable inet forgets {\n${text}}\nEND`)
  for (const setting of [`timeout_established=${memorySeconds}`, 'loose=0'])
    await hag('sysctl', '-qw', `net.netfilter.nf_conntrack_tcp_${setting}`)
  await world.startHag()
  const gateway = await world.startGateway()
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  const { client, lab } = world
  t.equal(await client.call('hold', { host: lab.addresses.server, port: ports.echo }, 5), 5)
  await sleep((memorySeconds + 3) * 1000)
  t.equal(await client.call('ping'), 5)
})
