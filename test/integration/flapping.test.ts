/** A link that flaps a hundred times in a minute: the download goes on, the control path stays cheap, and nothing is left behind. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { flap } from '../../src/lab/scenarios/flapping.js'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { controlSeconds, countDescriptors } from '../support/proc.js'
import { snapshot, stillness } from '../support/snapshot.js'

const flaps = 100

t.test('a hundred flaps in a minute', { skip: needsRoot, timeout: 150_000 }, async (t) => {
  const world = await World.create(t)
  await world.startHag()
  const cpe = world.execute('cpe')
  const before = await stillness(cpe)
  const gateway = await world.startGateway({ drain_seconds: 0 })
  const host = world.lab.addresses.server
  await gateway.waitFor(/WAN dsl is up/)
  await gateway.waitFor(/WAN lte is up/)
  t.match(await world.client.call('download', { host, port: ports.source, bytes: 1_000_000 }), { intact: true })
  await sleep(1000)
  // Pipes may stay in the engine's pool; to and from child processes Node uses sockets.
  const quiet = await settle(
    () => ({ sockets: countDescriptors(gateway.pid, 'socket'), children: childrenOf(gateway.pid) }),
    ({ children }) => children === 4,
  )
  const setUp = await cpe('sh', '-c', 'ip rule; ip -6 rule; ip route show table 5800; ip route show table 5801')

  let flapping = true
  const downloads = (async () => {
    const all = []
    while (flapping) {
      const begun = new Date().toISOString()
      const seen = await world.client.call('download', { host, port: ports.source, bytes: 20_000_000 })
      all.push({ ...seen, begun, ended: new Date().toISOString() })
    }
    return all
  })()
  const start = { at: performance.now(), cpu: controlSeconds(gateway.pid) }
  await flap(world.lab, 'dsl', flaps, (seconds) => sleep(seconds * 1000))
  const lastAt = performance.now()
  const cpu = controlSeconds(gateway.pid) - start.cpu
  const share = cpu / ((lastAt - start.at) / 1000)
  flapping = false
  const asBefore = async () =>
    (await world.endpoints()).join() === 'dsl,lte' &&
    (await cpe('sh', '-c', 'ip rule; ip -6 rule; ip route show table 5800; ip route show table 5801')) === setUp
  t.ok(await settle(asBefore, (right) => right, 5000), 'all is set up right within 5 s after the last flap')
  t.comment(
    `the control path took ${(share * 100).toFixed(1)} % of a core; right after ${Math.round(performance.now() - lastAt)} ms`,
  )
  t.ok(share < 0.2, `${(share * 100).toFixed(1)} % of a core`)
  const known = await settle(
    () => gateway.output.split('\n').findLast((line) => line.includes('WANs changed')) ?? '',
    (line) => line.includes('"name":"dsl"'),
  )
  t.match(known, /"name":"dsl".*"name":"lte"/, 'new connections know both WANs')
  const carried = await downloads
  t.ok(carried.length > 2, `${carried.length} downloads of 20 MB`)
  for (const one of carried) {
    const isWhole = t.match(one, { intact: true, error: undefined }, `the one of ${one.begun}`)
    // What the gateway did about that time tells why.
    if (!isWhole) for (const line of [JSON.stringify(one), ...gateway.output.split('\n')]) t.comment(line.slice(0, 200))
  }
  const end = await settle(
    () => ({ sockets: countDescriptors(gateway.pid, 'socket'), children: childrenOf(gateway.pid) }),
    ({ sockets, children }) => sockets <= quiet.sockets && children === quiet.children,
    // A minute after the last client no connection is kept ready for the next one.
    75_000,
  )
  t.same(end.children, quiet.children, 'no process is left over')
  t.ok(end.sockets <= quiet.sockets, `${quiet.sockets} sockets before, ${end.sockets} after`)
  t.same(await gateway.end('SIGTERM'), { code: 0, signal: null })
  // A TUN device that was never told of a carrier says UNKNOWN, afterwards UP.
  const same = (text: string) => text.replace(/^dsl +(UNKNOWN|UP) +/m, 'dsl ')
  t.equal(same(await snapshot(cpe)), same(before), 'and nothing is left in the end')
})

/** How many; at rest they are two monitors, an `ip` that waits for its input, and the guardian. */
function childrenOf(pid: number): number {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).length
}
