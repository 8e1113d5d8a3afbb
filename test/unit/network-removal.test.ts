/** Removing the set-up where something stands in the way, and from a state file that is damaged. */
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { fakeNetwork, gateway, snapshot, texts } from '../support/network-world.js'

t.test('remove takes away what it can where tools or MPTCP have gone, and says what it could not', async (t) => {
  const { network, kernel } = await fakeNetwork()
  await network.apply(gateway())
  kernel.missing.add('iptables-save').add('ip6tables-save')
  t.match(texts(await network.remove())[0], /^ip mptcp endpoint delete/)
  kernel.missing.clear()
  t.match(texts(await network.remove())[0], /^iptables-restore/)

  await network.apply(gateway())
  kernel.missing.add('ip6tables-restore')
  await t.rejects(network.remove(), {
    code: 'REMOVE_INCOMPLETE',
    message: 'not everything could be removed: "ip6tables-restore --noflush -w 5" failed: ip6tables-restore is not installed',
  })
  kernel.missing.clear()
  t.equal((await network.remove()).length, 2, 'only that is left')
  t.equal(kernel.state, undefined)
})

t.test('a full disk keeps nothing from being removed', async (t) => {
  const { network, kernel } = await fakeNetwork()
  await network.apply(gateway())
  // What is saved of it is written anew at the next occasion.
  kernel.removeDevice('lte')
  const write = kernel.writeState.bind(kernel)
  kernel.writeState = async (text) => {
    if (text !== undefined) throw new Error('ENOSPC: no space left on device, write')
    await write(text)
  }
  await network.remove()
  t.same(await network.remove(), [])
  t.equal(kernel.state, undefined)
})

t.test('a device that comes just before the end is as without us', async (t) => {
  const { network, kernel, addDevice } = await fakeNetwork()
  await network.apply(gateway())
  await addDevice('fibre')
  const acceptRa = async () => (await kernel.readSysctls(['net/ipv6/conf/fibre/accept_ra'])).get('net/ipv6/conf/fibre/accept_ra')
  t.equal(await acceptRa(), '2', 'it has what we gave to the default')
  await network.remove()
  t.equal(await acceptRa(), '1')
})

t.test('a state file that is cut off: what is left of it serves, and what is lost is named', async (t) => {
  const wans = ['dsl', 'lte', 'ppp0'].map((name) => ({ name, interface: name, gateway: `10.${name.length}.0.1` }))
  const config = gateway({ wans: [gateway().wans[0], gateway().wans[1], { ...wans[2], gateway: undefined }] })
  const setUp = () =>
    fakeNetwork((kernel) => {
      kernel.addDevice('ppp0', ['POINTOPOINT', 'NOARP', 'UP', 'LOWER_UP'])
      kernel.addAddress('ppp0', '10.3.0.2/32')
    })
  const applied = await setUp()
  const before = await snapshot(applied.kernel)
  await applied.network.apply(config)
  const whole = applied.kernel.state ?? ''
  const texts = ['', 'null', '[]', '{"sysctls":7}', '{"sysctls":{"net/ipv4/ip_forward":{}}}', '\0\0\0\0']
  let isNamed = 0
  for (const text of [...texts, ...Array.from({ length: whole.length / 37 }, (_, part) => whole.slice(0, part * 37))]) {
    const { kernel, network } = await setUp()
    await network.apply(config)
    kernel.state = text
    const plan = await new Network(kernel).plan(config)
    t.match(plan.notes.join(), /the state file below \/run\/bondsocks was damaged/, 'the next start says so')
    const error = await new Network(kernel).remove().catch((reason: Error) => reason)
    if (!(error instanceof Error)) throw new Error('it must not say that all is as before')
    const after = await snapshot(kernel)
    for (const [path, value] of Object.entries(after.sysctls)) {
      if (value === before.sysctls[path] || /conf\/all\/accept_redirects|forwarding$|wmem/.test(path)) continue
      t.ok(error.message.includes(`${path.replaceAll('/', '.')}=${value}`), `${path} is named`)
      isNamed++
    }
    t.same({ ...after, sysctls: {}, limits: '' }, { ...before, sysctls: {}, limits: '' }, 'all else is gone')
    if (after.limits !== before.limits) t.match(error.message, /the MPTCP limit of 3 subflows/)
    t.same(await new Network(kernel).remove(), [], 'and the next one has nothing to do')
  }
  t.ok(isNamed > 10)

  const { kernel, network } = await setUp()
  for (const text of ['{', undefined]) {
    await network.apply(config)
    kernel.state = text
    await network.apply(config)
    t.equal(kernel.state, whole, 'who runs knows it by heart')
    kernel.state = text
    await network.remove()
    t.same(await snapshot(kernel), before)
  }
})
