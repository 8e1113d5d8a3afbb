import t from 'tap'
import { type HagConfig, hagSchema } from '../../src/config/schema.js'
import { HagNetwork } from '../../src/network/hag-network.js'
import { diffCopy, parseCopy } from '../../src/network/kernel/copy.js'
import type { Kernel } from '../../src/network/kernel/kernel.js'
import { FakeKernel } from '../support/fake-kernel.js'

const config: HagConfig = hagSchema.parse({ listen: { address: '10.1.0.2' }, clients: ['10.0.0.0/8'] })
const window = { isAlone: false, needs: ['window4'] } as const

t.test('lines of `ip route show` as what `ip route append` takes', (t) => {
  for (const [line, words] of [
    [
      'default via 192.0.2.1 dev eth0 proto 16 metric 100 ',
      'default via 192.0.2.1 dev eth0 metric 100 initcwnd 48 table 5808 proto 158',
    ],
    [
      '192.0.2.0/24 dev eth0 proto 2 scope 253 src 192.0.2.2 linkdown ',
      '192.0.2.0/24 dev eth0 scope 253 src 192.0.2.2 initcwnd 48 table 5808 proto 158',
    ],
    [
      'default metric 9 \\\tnexthop via 192.0.2.1 dev a weight 2 \\\tnexthop via 192.0.2.3 dev b weight 1 ',
      'default metric 9 initcwnd 48 table 5808 proto 158 nexthop via 192.0.2.1 dev a weight 2 nexthop via 192.0.2.3 dev b weight 1',
    ],
    ['198.51.100.0/24 nhid 7 via 192.0.2.1 dev a ', '198.51.100.0/24 via 192.0.2.1 dev a initcwnd 48 table 5808 proto 158'],
    [
      '10.0.0.0/8 via 192.0.2.1 dev a initcwnd 20 rto_min lock 40ms ',
      '10.0.0.0/8 via 192.0.2.1 dev a rto_min 40ms initcwnd 20 table 5808 proto 158',
    ],
    // Of a group there is no copy: `ip` does not take both.
    [
      '198.51.100.0/24 nhid 3 \\\tnexthop via 192.0.2.1 dev a weight 1 \\\tnexthop via 192.0.2.3 dev b weight 1 ',
      '198.51.100.0/24 nhid 3 initcwnd 48 table 5808 proto 158 nexthop via 192.0.2.1 dev a weight 1 nexthop via 192.0.2.3 dev b weight 1',
    ],
    ['7 10.9.0.0/16 ', 'unreachable 10.9.0.0/16 initcwnd 48 table 5808 proto 158'],
    [
      'default via fe80::1 dev a proto 9 metric 1024 expires 1790sec hoplimit 64 pref medium',
      'default via fe80::1 dev a metric 1024 hoplimit 64 pref medium initcwnd 48 table 5808 proto 158',
    ],
  ] as const) {
    const seen = parseCopy(`${line}\n2 127.0.0.1 dev lo table 255 proto 2 scope 254 src 127.0.0.1 \n`, 4)
    t.equal(seen.main.length, 1)
    const routes = seen.main.map((route) => ({ ...route, window: route.window ?? '48', isOurs: true }))
    const [step] = diffCopy(seen, { family: 4, rules: [], routes })
    t.equal(step?.text, `ip -4 route append ${words}`)
  }
  t.end()
})

/** A HAG's machine; the clock is the test's. */
function machine() {
  const kernel = new FakeKernel()
  kernel.addDevice('eth0')
  kernel.addAddress('eth0', '10.1.0.2/24')
  const change = (words: string) => kernel.run(['ip', ...words.split(' ')])
  const clock = { now: 0 }
  const rules = async () => (await kernel.run('ip -N -o rule show'.split(' '))).stdout
  const copy = async () => {
    const { stdout } = await kernel.run('ip -N -o route show'.split(' '))
    return stdout.split('\n').filter((line) => line.includes(' table 5808'))
  }
  const watched = (run: Kernel['run']) =>
    new HagNetwork(Object.assign(Object.create(kernel) as FakeKernel, { run }), () => clock.now)
  return { kernel, change, clock, rules, copy, watched }
}

t.test('a link that flaps between the look and the copy: nothing counts as copied before it is', async (t) => {
  const { kernel, change, clock, rules, copy, watched } = machine()
  await change('route add default via 10.1.0.1 dev eth0')
  /** What happens to each copying in turn; the next ones succeed. */
  const fates: (() => Promise<void>)[] = [
    // Down: `ip -batch` stops at a device that has no network any more.
    async () => kernel.removeAddress('eth0', '10.1.0.2/24'),
  ]
  /** And what while it is read back. */
  const losses = [() => change('route flush table 5808'), () => change('route del default dev eth0 table 5808')]
  const network = watched(async (argv, input = '') => {
    if (input.includes('route append')) await fates.shift()?.()
    const result = await kernel.run(argv, input)
    // Down and up while it copies: the table has lost all that was in it, or some of it, with no error at all.
    if (input.includes('route append') && result.code === 0) await losses.shift()?.()
    if (input.includes('rule add') || argv.includes('add')) t.equal((await copy()).length, 2, 'no rule leads to half a table')
    return result
  })
  const failed = await network.apply(config, window)
  t.match(failed.notes, [/^answers over IPv4 begin with the kernel's initial window: "ip -4 route append .*" failed: Error/])
  t.same([await copy(), failed.steps], [[], []])
  kernel.addAddress('eth0', '10.1.0.2/24')
  await change('route add default via 10.1.0.1 dev eth0')
  for (const what of ['all of it', 'a part of it']) {
    clock.now += network.retryInMs('window4') ?? 0
    const { notes } = await network.apply(config, window)
    t.match(notes, [/^answers over IPv4 .*: the main table has no true copy: /], what)
    t.notMatch(await rules(), /5808/)
    t.same(await copy(), [])
  }
  clock.now += network.retryInMs('window4') ?? 0
  t.same((await network.apply(config, window)).notes, [])
  t.equal((await copy()).length, 2, 'in the end the copy is whole')
  t.match(await rules(), /32765:\tfrom all iif lo ipproto tcp sport 1080 lookup 5808/)
  t.equal(network.retryInMs('window4'), undefined)
})

t.test('what does not work is not tried again and again, unless routes or rules have changed', async (t) => {
  const { kernel, change, clock, watched } = machine()
  let tries = 0
  let isAllowed = false
  const network = watched(async (argv, input = '') => {
    if (!input.includes('route append')) return kernel.run(argv, input)
    tries++
    const stderr = 'RTNETLINK answers: Operation not permitted\nCommand failed -:1\n'
    return isAllowed ? kernel.run(argv, input) : { code: 2, stdout: '', stderr }
  })
  const apply = async () => (await network.apply(config, window)).notes
  const notes = await apply()
  t.match(notes, [/initial window: "ip -4 route append .*" failed: RTNETLINK answers: Operation not permitted$/])
  t.same(await apply(), notes, 'said again, but not tried')
  t.equal(tries, 1)
  const waits: number[] = []
  for (let left = 12; left > 0; left--) {
    waits.push(network.retryInMs('window4') ?? 0)
    clock.now += waits.at(-1) ?? 0
    t.same(await apply(), notes)
  }
  t.same([waits.slice(0, 3), waits.at(-1)], [[1000, 2000, 4000], 600_000])
  t.equal(tries, 13)
  await change('route add 192.0.2.0/24 via 10.1.0.9 dev eth0')
  await apply()
  t.equal(tries, 14, 'other routes may be copied')
  t.equal(network.retryInMs('window4'), 1000)
  isAllowed = true
  clock.now += 1000
  t.same(await apply(), [])
})

t.test('needs that are asked for at once are met one after the other, in that order', async (t) => {
  const { kernel, watched } = machine()
  let held = 0
  const order: string[] = []
  kernel.lock = async () => {
    t.equal(held++, 0, 'the lock itself has nobody who waits')
    return () => held--
  }
  const network = watched((argv, input) => kernel.run(argv, input))
  const needs = ['window4', 'window6', 'subflows', 'probing'] as const
  await Promise.all(needs.map((need) => network.apply(config, { isAlone: true, needs: [need] }).then(() => order.push(need))))
  t.same(order, needs)
})

t.test('a look that fails is a note, and the next one finds an untrue copy', async (t) => {
  const { kernel, change, copy, watched } = machine()
  let fails = false
  const network = watched(async (argv, input) => {
    if (fails && argv.includes('-o')) return { code: 124, stdout: '', stderr: 'no end after 10 s' }
    return kernel.run(argv, input)
  })
  await change('route add default via 10.1.0.1 dev eth0')
  t.same((await network.apply(config, window)).notes, [])
  await change('route replace default via 10.1.0.9 dev eth0')
  fails = true
  t.match((await network.apply(config, window)).notes, [/"ip -4 -N -o -batch -" failed: no end after 10 s/])
  t.equal(network.retryInMs('window4') !== undefined, true)
  fails = false
  t.same((await network.apply(config, window)).notes, [])
  t.match((await copy()).join(), /default via 10\.1\.0\.9/)
})
