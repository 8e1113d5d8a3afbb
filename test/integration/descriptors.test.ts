/** No descriptor is left in a running program: it goes on with what it has, and with everything once there are some again. */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { ports, settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { countDescriptors } from '../support/proc.js'

/** Fewer than it has open, so that it can open none. Returns what gives them back. */
function takeDescriptors(pid: number): () => void {
  const prlimit = (soft: string) => execFileSync('prlimit', ['--pid', String(pid), `--nofile=${soft}:`])
  const before = execFileSync('prlimit', ['--pid', String(pid), '--nofile', '--noheadings', '-o', 'SOFT'])
    .toString()
    .trim()
  prlimit('4')
  return () => prlimit(before)
}

t.test('no descriptor is left', { skip: needsRoot, timeout: 60_000 }, async (t) => {
  const world = await World.run(t, { gateway: { drain_seconds: 0 }, hag: { drain_seconds: 0 } })
  const { client, gateway, hag, lab } = world
  const target = { host: lab.addresses.server, port: ports.echo }
  const count = 10
  await gateway.waitFor(/WAN lte is up/)
  await client.call('hold', target, count)
  const goesOn = async (what: string) => {
    t.equal(await client.call('ping', 5000), count, `${what}: connections go on`)
    const late = client.call('talk', { host: target.host, port: ports.greeter }, '', 1)
    return { late }
  }
  const waitsFor = async ({ late }: Awaited<ReturnType<typeof goesOn>>, what: string) => {
    t.match(await late, { received: /^220/ }, `${what}: a client that waited is served`)
    t.match(await client.call('download', { host: target.host, port: ports.source, bytes: 100_000 }), { intact: true })
  }

  const give = takeDescriptors(gateway.pid)
  await lab.carrier('lte', false)
  await gateway.waitFor(/WAN lte is down.*HAG \S+ is down: EMFILE/s)
  const open = await goesOn('gateway')
  t.ok(gateway.running, `it has ${countDescriptors(gateway.pid)}`)
  give()
  await lab.carrier('lte', true)
  await waitsFor(open, 'gateway')
  await gateway.waitFor(/WAN lte is down.*WAN lte is up/s)
  const both = await settle(
    () => world.endpoints(),
    (devices) => devices.length === 2,
  )
  t.same(both, ['dsl', 'lte'], 'the WAN that comes back is used again')

  const giveHag = takeDescriptors(hag.pid)
  const asked = await goesOn('HAG')
  giveHag()
  await waitsFor(asked, 'HAG')
  t.notMatch(gateway.output + hag.output, /the end follows/)
})
