/** What a HAG sets up on its machine, on the model and on the real kernel. */
import t from 'tap'
import { type HagConfig, hagSchema } from '../../src/config/schema.js'
import { HagNetwork } from '../../src/network/hag-network.js'
import { Network } from '../../src/network/network.js'
import { needsRoot, type Scope } from '../support/namespaces.js'
import {
  addForeign,
  failing,
  fakeWorld,
  furnish,
  gateway,
  netnsWorld,
  snapshot,
  texts,
  type World,
} from '../support/network-world.js'

const hag = (more: object = {}): HagConfig =>
  hagSchema.parse({ listen: { address: '10.1.0.2' }, clients: ['10.0.0.0/8'], ...more })
const alone = { isAlone: true }
const ruleOf = (family: 4 | 6, port = 1080) =>
  `ip -${family} rule add pref 32765 from all iif lo ipproto tcp sport ${port} lookup 5808`

const worlds: [name: string, make: (scope: Scope) => Promise<World>, stride: number, skip: string | false][] = [
  ['model', async () => fakeWorld(), 1, false],
  ['kernel', (scope) => netnsWorld(scope), 4, needsRoot],
]

for (const [name, make, stride, skip] of worlds) {
  t.test(name, { skip }, async (t) => {
    const world = async (scope: Scope) => {
      const made = await make(scope)
      await furnish(made)
      const { kernel } = made
      const ip = async (words: string) => (await kernel.run(['ip', ...words.split(' ')])).stdout
      return { ...made, ip, network: new HagNetwork(kernel), before: await snapshot(kernel) }
    }

    t.test('plan changes nothing, apply does what plan said, a second apply nothing, remove undoes it', async (t) => {
      const { kernel, network, before } = await world(t)
      const plan = await network.plan(hag(), alone)
      t.same(await snapshot(kernel), before)
      t.equal(kernel.state, undefined)
      t.same(plan.notes, [])
      const steps = texts(plan.steps)
      t.same(steps.slice(-2), ['ip mptcp limits set subflows 8', 'sysctl -w net.ipv4.tcp_mtu_probing=1'])
      t.ok(steps.some((text) => /^ip -4 route append 192\.168\.1\.0\/24 dev br0 .*initcwnd 48 table 5808 proto 158$/.test(text)))
      t.ok(steps.indexOf(ruleOf(4)) > 2 && steps.indexOf(ruleOf(6)) === steps.length - 3, 'a rule comes after its routes')

      t.same(await network.apply(hag(), alone), plan)
      t.same(texts((await network.apply(hag(), alone)).steps), [])
      t.same(texts((await new HagNetwork(kernel).plan(hag(), alone)).steps), [])
      t.match(JSON.parse(kernel.state ?? ''), { subflows: { former: 2, ours: [8] } })

      await network.remove()
      t.same(await snapshot(kernel), before)
      t.equal(kernel.state, undefined)
    })

    t.test('what a killed one has left goes with the next one, or by remove', async (t) => {
      const { kernel, network, before, ip } = await world(t)
      await network.apply(hag({ listen: { address: '10.1.0.2', port: 1081 } }), alone)
      // As an older version of ours had it.
      await ip('rule add pref 5808 ipproto tcp sport 1079 lookup 5808')
      const next = new HagNetwork(kernel)
      await next.apply(hag(), alone)
      const rules = await ip('-N -o rule show')
      t.match(rules, / sport 1080 lookup 5808/)
      t.notMatch(rules, / sport (1079|1081) /)
      await next.remove()
      t.same(await snapshot(kernel), before)

      await network.apply(hag(), alone)
      const removed = texts(await new Network(kernel).remove({ hags: true }))
      t.ok(removed.includes(ruleOf(4).replace('add', 'del')))
      t.ok(removed.includes('ip -6 route flush table 5808 proto 158'))
      t.same(await snapshot(kernel), before)
      t.equal(kernel.state, undefined)
    })

    t.test('killed after any step: remove finds all of it', async (t) => {
      const { kernel, network, before } = await world(t)
      const { length } = (await network.plan(hag(), alone)).steps
      for (let at = 0; at < length; at += stride) {
        await new HagNetwork(failing(kernel, at, { killed: true })).apply(hag(), alone).catch(() => undefined)
        await new Network(kernel).remove({ hags: true })
        t.same(await snapshot(kernel), before, `after ${at} steps`)
        t.equal(kernel.state, undefined)
      }
    })

    t.test('a step that fails is a note, and the other needs are met', async (t) => {
      const { kernel, before } = await world(t)
      const { length } = (await new HagNetwork(kernel).plan(hag(), alone)).steps
      for (let at = 0; at < length; at += stride) {
        const network = new HagNetwork(failing(kernel, at))
        const { notes } = await network.apply(hag(), alone)
        t.equal(notes.length, 1)
        t.match(
          notes[0],
          /^(how many WANs|what becomes of lines|answers over IPv[46] begin with the kernel's).*: "(ip|sysctl) .*" failed: injected failure$/,
        )
        await network.remove()
        t.same(await snapshot(kernel), before, `step ${at}`)
      }
    })

    t.test('the main table changes: the copy is made anew, its rule last', async (t) => {
      const { network, ip } = await world(t)
      await network.apply(hag(), alone)
      await ip('route add 192.0.2.0/24 via 10.1.0.9 initcwnd 20 dev dsl')
      const { steps } = await network.apply(hag(), { isAlone: false })
      const found = texts(steps)
      t.same(found.slice(0, 2), [ruleOf(4).replace('add', 'del'), 'ip -4 route flush table 5808 proto 158'])
      t.equal(found.at(-1), ruleOf(4))
      t.ok(
        found.includes('ip -4 route append 192.0.2.0/24 via 10.1.0.9 dev dsl initcwnd 20 table 5808 proto 158'),
        'a window that is there stays',
      )
      t.notOk(found.some((text) => text.startsWith('ip -6')))
      t.same(texts((await network.apply(hag(), { isAlone: false })).steps), [])
    })

    t.test('a rule that comes between: ours is put behind it', async (t) => {
      const { network, ip } = await world(t)
      await network.apply(hag(), alone)
      await ip('rule add pref 32765 from 10.1.0.2 lookup 100')
      t.same(texts((await network.apply(hag(), { isAlone: false })).steps), [ruleOf(4).replace('add', 'del'), ruleOf(4)])
      t.same(texts((await network.apply(hag(), { isAlone: false })).steps), [])
      await ip('rule add pref 32766 from all lookup 100')
      await ip('rule del pref 32766 from all lookup main')
    })

    t.test('where no copy can be had there is a note, and nothing that leads astray', async (t) => {
      const { network, ip, before, kernel } = await world(t)
      await network.apply(hag(), alone)
      const many = Array.from({ length: 501 }, (_, at) => `route add 100.64.${at >> 8}.${at & 255} via 10.1.0.9 dev dsl\n`)
      await kernel.run(['ip', '-batch', '-'], many.join(''))
      const { notes } = await network.apply(hag(), { isAlone: false })
      t.match(notes, [/^answers over IPv4 begin with the kernel's initial window: the main table has \d+ routes$/])
      t.notMatch(await ip('-N -o rule show'), /5808/)
      t.notMatch(await ip('-4 -N -o route show table all'), / table 5808 /)
      await kernel.run(['ip', '-batch', '-'], many.join('').replaceAll('add', 'del'))
      t.same((await network.apply(hag(), { isAlone: false })).notes, [])
      t.match(await ip('-N -o rule show'), /5808/)
      await network.remove()
      t.same(await snapshot(kernel), before)
    })

    t.test("somebody else's table of our number stays, and then there is no window", async (t) => {
      const { kernel, network } = await world(t)
      await addForeign(kernel)
      const before = await snapshot(kernel)
      const { notes } = await network.apply(hag(), alone)
      t.match(notes, [/^answers over IPv4 .*: table 5808 is somebody else's, it has 198\.51\.100\.0\/24 via 10\.1\.0\.9 dev dsl/])
      await new Network(kernel).remove({ hags: true })
      t.same(await snapshot(kernel), before)
    })

    t.test('two HAGs: the window of the first one, and a rule each', async (t) => {
      const { kernel, network, ip } = await world(t)
      await network.apply(hag(), alone)
      const second = new HagNetwork(kernel)
      const other = hag({ listen: { address: '10.1.0.2', port: 1081 }, initial_window: 20 })
      const shared = { isAlone: false }
      t.same(texts((await second.apply(other, shared)).steps), [ruleOf(4, 1081), ruleOf(6, 1081)])
      t.same(texts((await network.apply(hag(), shared)).steps), [])
      await ip('route add 192.0.2.0/24 via 10.1.0.9 dev dsl')
      const made = texts((await second.apply(other, shared)).steps)
      t.same(made.slice(-2).sort(), [ruleOf(4), ruleOf(4, 1081)])
      t.same(texts((await network.apply(hag(), shared)).steps), [])
      t.same(texts((await second.apply(hag({ initial_window: 0 }), shared)).steps), [], 'one without leaves the other ones alone')
    })

    t.test('a gateway and a HAG on one machine leave each other alone', async (t) => {
      const { kernel, network, before } = await world(t)
      const router = new Network(kernel)
      await router.apply(gateway())
      await network.apply(hag(), alone)
      const both = await snapshot(kernel)
      t.same(texts((await router.apply(gateway())).steps), [])
      t.same(texts((await network.apply(hag(), alone)).steps), [])
      t.same(await snapshot(kernel), both)
      await network.remove()
      await router.apply(gateway())
      await router.remove()
      t.same(await snapshot(kernel), before)
      t.equal(kernel.state, undefined)
    })
  })
}
