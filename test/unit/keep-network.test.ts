/** How a running HAG keeps what it needs of its machine, what it says of it, and that it is put back. */
import t from 'tap'
import { BondsocksError } from '../../src/base/errors.js'
import { hagSchema } from '../../src/config/schema.js'
import { keepNetwork } from '../../src/hag/keep-network.js'
import { alone, type Membership } from '../../src/network/lock.js'
import { Network } from '../../src/network/network.js'
import { needsRoot } from '../../src/network/state.js'
import { toLog } from '../../src/telemetry/events.js'
import { FakeKernel } from '../support/fake-kernel.js'
import { memoryLog } from '../support/memory-log.js'
import { settle } from '../support/wait.js'

const probing = 'net/ipv4/tcp_mtu_probing'

function machine() {
  const kernel = new FakeKernel()
  kernel.addDevice('eth0')
  kernel.addAddress('eth0', '10.1.0.2/24')
  kernel.addAddress('eth0', '2001:db8::2/64')
  const ip = async (words: string) => (await kernel.run(['ip', ...words.split(' ')])).stdout
  const state = async () => ({
    limit: (await ip('mptcp limits show')).trim(),
    probing: (await kernel.readSysctls([probing])).get(probing),
    rules: [await ip('-4 -N -o rule show'), await ip('-6 -N -o rule show')].map((text) => text.includes('lookup 5808')),
  })
  return { kernel, ip, state, before: { limit: 'add_addr_accepted 0 subflows 2', probing: '0', rules: [false, false] } }
}
const there = { limit: 'add_addr_accepted 0 subflows 8', probing: '1', rules: [true, true] }
type State = typeof there
const isThere = (now: object) => JSON.stringify(now) === JSON.stringify(there)

interface Begin {
  member?: Membership
  join?: () => Promise<Membership>
  more?: object
}

function begin(kernel: FakeKernel, { member = alone, join = async () => member, more = {} }: Begin = {}) {
  const log = memoryLog()
  const stop = new AbortController()
  const here = { log, changed: () => {}, guards: 0, watches: 0 }
  const config = hagSchema.parse({ listen: { address: '10.1.0.2' }, clients: ['10.0.0.0/8'], ...more })
  const ended = keepNetwork(
    config,
    {
      emit: toLog(log),
      kernel,
      join,
      guard: () => {
        here.guards++
        return { dismiss: async () => void here.guards-- }
      },
      watch: async ({ onChange }, signal) => {
        here.watches++
        here.changed = onChange
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
      },
    },
    stop.signal,
  )
  return Object.assign(here, {
    async end() {
      stop.abort()
      await ended
    },
  })
}

t.test('for its time, without a word, and put back by the last one', async (t) => {
  const { kernel, state, before } = machine()
  const hag = begin(kernel)
  t.same(await settle(state, isThere), there)
  t.equal(hag.guards, 1)
  await hag.end()
  t.same(await state(), before)
  t.same([kernel.state, hag.log.lines, hag.guards], [undefined, [], 0])
})

t.test('one that is not the last leaves all of it', async (t) => {
  const { kernel, state } = machine()
  const hag = begin(kernel, { member: { ...alone, isLast: () => false } })
  await settle(state, isThere)
  await hag.end()
  t.same(await state(), there)
  await new Network(kernel).remove({ hags: true })
  t.equal(kernel.state, undefined)
})

t.test('what others have set stays', async (t) => {
  const { kernel, state } = machine()
  kernel.setSysctl(probing, '2')
  const hag = begin(kernel)
  const theirs = (now: State) => now.rules.every(Boolean)
  t.equal((await settle(state as () => Promise<State>, theirs)).probing, '2')
  await hag.end()
  t.equal((await state()).probing, '2')
})

t.test('it follows the main table, says what it cannot do once, and when it can again', async (t) => {
  const { kernel, ip, state } = machine()
  const hag = begin(kernel)
  await settle(state, isThere)
  await ip('route add 192.0.2.0/24 via 10.1.0.9 dev eth0')
  hag.changed()
  const copy = () => ip('-4 -N -o route show')
  t.match(await settle(copy, (text) => /192.*5808/.test(text)), /192\.0\.2\.0\/24 .*initcwnd 48 .*table 5808/)

  const many = Array.from({ length: 500 }, (_, at) => `route add 100.64.${at >> 8}.${at & 255} via 10.1.0.9 dev eth0\n`).join('')
  await kernel.run(['ip', '-batch', '-'], many)
  hag.changed()
  await settle(
    () => hag.log.lines,
    ({ length }) => length > 0,
  )
  hag.changed()
  await new Promise((resolve) => setTimeout(resolve, 90))
  t.same(hag.log.lines, ["info answers over IPv4 begin with the kernel's initial window: the main table has 502 routes"])
  t.same((await state()).rules, [false, true], 'IPv6 keeps its own')
  await kernel.run(['ip', '-batch', '-'], many.replaceAll('add', 'del'))
  hag.changed()
  // On a busy machine the pass in vain took long, and the next one follows within a minute.
  t.same(await settle(state, isThere, 65_000), there)
  t.same(hag.log.lines.slice(1), ['info answers over IPv4 begin with 48 segments again'])
  await hag.end()
})

t.test('what could not be had is said when it is there', async (t) => {
  const { kernel, ip, state } = machine()
  const run = kernel.run.bind(kernel)
  kernel.run = async (argv, input) => {
    const isForbidden = /mptcp limits set/.test(`${argv.join(' ')} ${input}`) && forbidden
    return isForbidden ? { code: 2, stdout: '', stderr: 'Operation not permitted' } : run(argv, input)
  }
  let forbidden = true
  kernel.fixed.add(probing)
  const hag = begin(kernel)
  const said = (count: number) =>
    settle(
      () => hag.log.lines,
      ({ length }) => length === count,
    )
  t.match((await said(2)).toSorted(), [
    /^info how many WANs can join .* stays as it is: /,
    /^info what becomes of lines .* stays as it is: /,
  ])
  forbidden = false
  kernel.fixed.delete(probing)
  hag.changed()
  t.same((await said(4)).slice(2).toSorted(), [
    'info now as many WANs can join a connection as a gateway can have',
    'info now smaller packets are tried on lines that drop full-size ones',
  ])
  await settle(state, isThere)
  await hag.end()
  t.match(await ip('mptcp limits show'), 'subflows 2')
})

t.test('without permission that is said in one line, and nothing is begun', async (t) => {
  const { kernel, state, before } = machine()
  const line = `info this machine stays as it is, so answers begin with the kernel's initial window: ${needsRoot}`
  const other = begin(kernel, { join: () => Promise.reject(new BondsocksError('NOT_ROOT', needsRoot)) })
  await other.end()
  kernel.mayAdminister = async () => false
  const incapable = begin(kernel)
  await incapable.end()
  for (const hag of [other, incapable]) t.same([hag.log.lines, hag.guards, hag.watches], [[line], 0, 0])
  t.same(await state(), before)
})

t.test('switched off there is no window, and what a killed one has left of it goes', async (t) => {
  const { kernel, state } = machine()
  const former = begin(kernel, { member: { ...alone, isLast: () => false } })
  await settle(state, isThere)
  await former.end()
  const hag = begin(kernel, { more: { initial_window: 0 } })
  const without = { ...there, rules: [false, false] }
  t.same(await settle(state, (now) => JSON.stringify(now) === JSON.stringify(without)), without)
  t.same([hag.guards, hag.watches, hag.log.lines], [0, 0, []])
  await hag.end()
})
