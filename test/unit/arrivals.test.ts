/** From counters to "a firewall drops them", with a clock that the test moves. */
import t from 'tap'
import { Arrivals } from '../../src/network/arrivals.js'
import type { Kernel } from '../../src/network/kernel/kernel.js'
import type { KernelChain } from '../../src/network/state.js'

/** `ruleset`: what nft lists. `saved`: what iptables-save prints, and iptables-legacy-save, each if it is installed. */
function setUp(ruleset: object[] = [], saved: { iptables?: string; legacy?: string } = {}) {
  let now = 0
  const outputs = (): Record<string, string | undefined> => ({
    nft: JSON.stringify({ nftables: ruleset }),
    'iptables-save': saved.iptables,
    'iptables-legacy-save': saved.legacy,
  })
  const run = async ([program = '']: string[]) => {
    const stdout = outputs()[program]
    return { code: stdout === undefined ? 127 : 0, stdout: stdout ?? '', stderr: '' }
  }
  const kernel = { run }
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

const drop = { drop: null }
const input = (policy: string) => ({ chain: { family: 'inet', table: 'host', name: 'input', hook: 'input', policy } })
const rule = (...expr: object[]) => ({ rule: { family: 'inet', table: 'host', chain: 'input', expr } })

t.test('it is tried again as soon as the rules of the firewall are others', async (t) => {
  const ruleset: object[] = [input('drop'), rule({ counter: { packets: 1, bytes: 60 } }, drop)]
  const saved = { legacy: '' }
  const { look, pass } = setUp(ruleset, saved)
  const isBlocked = async (counts: [number, number] = [0, 0]) => (await look({ br0: counts })).length === 1
  t.ok(await isBlocked([3, 0]))
  pass(10_000)
  ruleset[1] = rule({ counter: { packets: 7, bytes: 420 } }, drop)
  ruleset.push({ rule: { family: 'ip', table: 'nat', chain: 'DOCKER', expr: [{ dnat: {} }] } })
  t.ok(await isBlocked(), 'counters, and rules that drop nothing, change all day')
  ruleset.unshift(rule({ accept: null }))
  t.notOk(await isBlocked(), 'what the note advises')

  t.ok(await isBlocked([2, 0]), 'in vain')
  saved.legacy = '*mangle\n:INPUT ACCEPT [0:0]\n-A INPUT -i br0 -j DROP\nCOMMIT\n'
  t.ok(await isBlocked(), 'rules that change all day do not cut the LAN off all day')
  pass(60_000)
  t.notOk(await isBlocked(), 'the other flavour of iptables counts too')
})

t.test('the same without nft, whatever flavour iptables has', async (t) => {
  const table = (name: string, ...rules: string[]) => `*${name}\n:INPUT ACCEPT [7:420]\n${rules.join('\n')}\nCOMMIT\n`
  const drops = '-A INPUT -i br0 -p tcp -j DROP'
  const saved = {
    iptables: `# Generated at noon\n${table('filter', '-A INPUT -j BONDSOCKS')}${table('mangle', `[4:9] ${drops}`)}`,
  }
  const { look, pass } = setUp([], saved)
  t.equal((await look({ br0: [3, 0] })).length, 1)
  pass(60_000)
  saved.iptables = `# Generated later\n${table('filter', '-A f2b-sshd -s 192.0.2.1 -j DROP')}${table('mangle', `[5:11] ${drops}`)}`
  t.equal((await look({ br0: [0, 0] })).length, 1, 'our own rule comes before all others of the filter table')
  saved.iptables = table('mangle')
  t.same(await look({ br0: [0, 0] }), [])
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
