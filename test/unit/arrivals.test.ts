/** From counters to "a firewall drops them", with a clock that the test moves. */
import t from 'tap'
import { Arrivals } from '../../src/network/arrivals.js'
import type { Kernel } from '../../src/network/kernel/kernel.js'
import type { KernelChain } from '../../src/network/state.js'

function setUp(ruleset: object[] = []) {
  let now = 0
  const kernel = { run: async () => ({ code: 0, stdout: JSON.stringify({ nftables: ruleset }), stderr: '' }) }
  const arrivals = new Arrivals(kernel as unknown as Kernel, () => now)
  const chain = (table: 'nat' | 'filter', counts: Record<string, [number, number]>, isInFront = true): KernelChain => ({
    family: 4,
    table,
    program: 'iptables',
    exists: true,
    isUsed: true,
    isInFront,
    rules: [],
    jumps: [],
    places: [],
    redirected: new Map(Object.entries(counts).map(([device, [redirected]]) => [device, redirected])),
    arrived: new Map(Object.entries(counts).map(([device, [, arrived]]) => [device, arrived])),
  })
  return {
    pass: (ms: number) => (now += ms),
    async look(counts: Record<string, [redirected: number, arrived: number]>, isInFront = true) {
      await arrivals.look([chain('nat', counts), chain('filter', {}, isInFront)], {
        listen: { port: 12345 },
        on_hag_down: 'direct',
      })
      return arrivals.blocked
    },
  }
}

t.test('what arrives, or what says nothing', async (t) => {
  const { look } = setUp()
  t.same(await look({ br0: [0, 0] }), [])
  t.same(await look({ br0: [1, 0] }), [], 'a SYN may be on its way')
  t.same(await look({ br0: [5, 4] }), [])
  t.same(await look({ br0: [9, 4] }), [], 'some have arrived, so it may be one device')
  t.same(await look({ br0: [9, 4] }), [])
  t.same(await look({ br0: [12, 5] }), [])
  t.same(await look({ br0: [3, 0] }), [], 'a chain made anew')
})

t.test('what does not arrive, one interface and ten minutes at a time', async (t) => {
  const { look, pass } = setUp()
  const [blocked, ...others] = await look({ br0: [7, 7], guest: [3, 0] })
  t.match(blocked, { family: 4, device: 'guest', note: /IPv4 connections from guest .*iptables -S/ })
  t.same(others, [])
  pass(9 * 60_000)
  t.equal((await look({ br0: [8, 8] })).length, 1)
  pass(60_000)
  t.same(await look({ br0: [9, 9], guest: [0, 0] }), [], 'it is tried again')
  t.equal((await look({ br0: [9, 9], guest: [2, 0] })).length, 1)
})

t.test('a firewall that comes later', async (t) => {
  const { look } = setUp()
  await look({ br0: [10, 10] })
  t.same(await look({ br0: [15, 10] }), [])
  t.equal((await look({ br0: [19, 10] })).length, 1)
})

t.test('while a rule of others stands in front of ours that is mended first', async (t) => {
  const { look } = setUp()
  t.same(await look({ br0: [9, 0] }, false), [])
  t.equal((await look({ br0: [12, 0] })).length, 1)
})

t.test('the chains that may be to blame, and what lets them in', async (t) => {
  const base = { hook: 'input', name: 'input' }
  const { look } = setUp([
    { chain: { family: 'inet', table: 'fw4', policy: 'drop', ...base } },
    { chain: { family: 'inet', table: 'open', policy: 'accept', ...base } },
    { chain: { family: 'ip6', table: 'six', policy: 'drop', ...base } },
    { chain: { family: 'ip', table: 'filter', policy: 'drop', hook: 'input', name: 'INPUT' } },
    { chain: { family: 'inet', table: 'home', policy: 'accept', ...base } },
    { rule: { family: 'inet', table: 'home', chain: 'input', expr: [{ counter: {} }, { reject: null }] } },
  ])
  const [blocked] = await look({ br0: [4, 0] })
  const insert = (where: string) => `nft insert rule inet ${where} input tcp dport 12345 ct status dnat accept`
  t.ok(blocked?.note.endsWith(`let them in: ${insert('fw4')}; ${insert('home')}`))
})
