/** What a HAG sets on its machine, and that it is put back. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Network } from '../../src/network/network.js'
import { capture } from '../../src/network/observe.js'
import { keepSubflowLimit } from '../../src/network/subflow-limit.js'
import { FakeKernel } from '../support/fake-kernel.js'

const probing = 'net/ipv4/tcp_mtu_probing'
const log = { info: () => {}, warn: () => {}, error: () => {}, debug: () => {}, debugging: false }

async function begin(kernel: FakeKernel) {
  const ending = new AbortController()
  const ended = keepSubflowLimit({ kernel, log }, ending.signal)
  await sleep(20)
  return async () => {
    ending.abort()
    await ended
  }
}
const state = async (kernel: FakeKernel) => [
  (await capture(kernel, ['ip', 'mptcp', 'limits', 'show'])).trim(),
  (await kernel.readSysctls([probing])).get(probing),
]

t.test('for its time, also where it is killed', async (t) => {
  const kernel = new FakeKernel()
  const end = await begin(kernel)
  t.same(await state(kernel), ['add_addr_accepted 0 subflows 8', '1'])
  await end()
  t.same(await state(kernel), ['add_addr_accepted 0 subflows 2', '0'])
  t.equal(kernel.state, undefined)
  await begin(kernel)
  await new Network(kernel).remove()
  t.same(await state(kernel), ['add_addr_accepted 0 subflows 2', '0'], 'by remove')
})

t.test('what somebody else has set stays', async (t) => {
  const kernel = new FakeKernel()
  kernel.setSysctl(probing, '2')
  const end = await begin(kernel)
  t.equal((await state(kernel))[1], '2')
  await end()
  t.equal((await state(kernel))[1], '2')
})

t.test('without permission it is said once, and nothing is put back', async (t) => {
  const kernel = new FakeKernel()
  kernel.lock = () => Promise.reject(new Error('needs root'))
  const lines: string[] = []
  const ending = new AbortController()
  const ended = keepSubflowLimit({ kernel, log: { ...log, info: (text: string) => lines.push(text) } }, ending.signal)
  ending.abort()
  await ended
  t.equal(lines.length, 2)
})
