import t from 'tap'
import { HagDirectory, type HagEntryWithPassword, inOrder, type Names } from '../../src/gateway/hags/directory.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'
import { paceOf } from '../support/pace.js'

const entry = (more: Partial<HagEntryWithPassword>): HagEntryWithPassword => ({ weight: 1, ...more })

class FakeNames implements Names {
  known: Record<string, string[]> = {}
  records: Record<string, Awaited<ReturnType<Names['services']>>> = {}
  trouble: string | undefined

  async addresses(name: string): Promise<string[]> {
    if (this.trouble !== undefined || this.known[name] === undefined)
      throw Object.assign(new Error('x'), { code: this.trouble ?? 'ENOTFOUND' })
    return this.known[name]
  }

  async services(name: string) {
    if (this.trouble !== undefined) throw Object.assign(new Error('x'), { code: this.trouble })
    return this.records[name] ?? []
  }
}

function directory(...entries: HagEntryWithPassword[]) {
  const names = new FakeNames()
  const log = memoryLog()
  const made = new HagDirectory({ entries, names, emit: toLog(log), pace: paceOf(), identity: 'one home' })
  const addresses = () => made.hags.map(({ hag }) => `${hag.address} ${hag.port}`)
  return { made, names, log, addresses }
}

t.test('in the order of the config, unless it gives priorities', async (t) => {
  const { made, addresses } = directory(
    entry({ address: '203.0.113.3' }),
    entry({ address: '203.0.113.4', port: 2080, username: 'me', password: 'pw' }),
    entry({ address: '203.0.113.5', priority: 0 }),
  )
  t.same(addresses().slice(2), ['203.0.113.4 2080'])
  t.same(made.hags[2]?.hag, { address: '203.0.113.4', port: 2080, username: 'me', password: 'pw' }, 'from the beginning')
  t.equal(await made.refresh(), false, 'nothing changed')
})

t.test('a name: both families; what changes is told, what stays is the same object', async (t) => {
  const { made, names, addresses } = directory(entry({ name: 'hag.example' }), entry({ address: '203.0.113.9' }))
  names.known['hag.example'] = ['203.0.113.3', '2001:DB8::3', '::ffff:203.0.113.3']
  await made.refresh()
  t.same(addresses().sort(), ['2001:db8::3 1080', '203.0.113.3 1080', '203.0.113.9 1080'], 'once each, in canonical text')
  const last = made.hags.at(-1)?.hag
  names.known['hag.example'] = ['203.0.113.7']
  t.equal(await made.refresh(), true)
  t.same(addresses(), ['203.0.113.7 1080', '203.0.113.9 1080'])
  t.equal(made.hags.at(-1)?.hag, last)
})

t.test('an SRV name brings ports, priorities and weights', async (t) => {
  const { made, names, addresses } = directory(entry({ name: '_bondsocks._tcp.example' }))
  names.known = { 'a.example': ['203.0.113.3'], 'b.example': ['203.0.113.4'] }
  names.records['_bondsocks._tcp.example'] = [
    { name: 'a.example', port: 1080, priority: 20, weight: 1 },
    { name: 'b.example', port: 2080, priority: 10, weight: 1 },
  ]
  await made.refresh()
  t.same(addresses(), ['203.0.113.4 2080', '203.0.113.3 1080'])
})

t.test('a lookup that fails: said once, what was known stays; then it works again', async (t) => {
  const { made, names, log, addresses } = directory(entry({ name: 'hag.example' }))
  names.trouble = 'ESERVFAIL'
  t.equal(await made.refresh(), false)
  t.same(addresses(), [])
  names.trouble = undefined
  names.known['hag.example'] = ['203.0.113.3']
  await made.refresh()
  names.trouble = 'ETIMEDOUT'
  for (let n = 0; n < 3; n++) t.equal(await made.refresh(), false)
  t.same(addresses(), ['203.0.113.3 1080'])
  names.trouble = undefined
  await made.refresh()
  t.same(log.lines, [
    'warn the HAG hag.example cannot be looked up: ESERVFAIL',
    'info the HAG hag.example can be looked up again',
    'warn the HAG hag.example cannot be looked up: ETIMEDOUT',
    'info the HAG hag.example can be looked up again',
  ])
})

t.test('of a fleet one machine whose name leads nowhere does not take the others along', async (t) => {
  const { made, names, log, addresses } = directory(entry({ name: '_socks._tcp.example' }))
  names.known['b.example'] = ['203.0.113.4']
  names.records['_socks._tcp.example'] = [
    { name: 'gone.example', port: 1080, priority: 1, weight: 1 },
    { name: 'b.example', port: 1080, priority: 2, weight: 1 },
  ]
  await made.refresh()
  t.same(addresses(), ['203.0.113.4 1080'])
  t.same(log.lines, ['warn the HAG gone.example cannot be looked up: ENOTFOUND'])
  names.known['gone.example'] = ['203.0.113.3']
  await made.refresh()
  t.same(addresses(), ['203.0.113.3 1080', '203.0.113.4 1080'])
  names.known['gone.example'] = undefined as never
  await made.refresh()
  t.same(addresses(), ['203.0.113.3 1080', '203.0.113.4 1080'], 'what was known of it stays')
  // RFC 2782: a target of "." says that there is no such service.
  names.records['_socks._tcp.example'] = [{ name: '', port: 0, priority: 0, weight: 0 }]
  await made.refresh()
  t.same(addresses(), [])
})

t.test('what a fleet does not name any more is forgotten, and does not grow', async (t) => {
  const { made, names, log, addresses } = directory(entry({ name: '_socks._tcp.example' }))
  const machine = (name: string, priority = 1) => ({ name, port: 1080, priority, weight: 1 })
  const fleet = async (...machines: ReturnType<typeof machine>[]) => {
    names.records['_socks._tcp.example'] = machines
    await made.refresh()
  }
  const trouble = 'warn the HAG gone.example cannot be looked up: ENOTFOUND'
  names.known['b.example'] = ['203.0.113.4']
  await fleet(machine('gone.example'), machine('b.example'))
  t.equal(made.isTroubled, true)
  await fleet(machine('b.example'))
  t.equal(made.isTroubled, false, 'all is well, so it need not be looked up every 5 s')
  await fleet(machine('gone.example'), machine('b.example'))
  t.same(log.lines, [trouble, trouble])

  for (let index = 0; index < 1000; index++) names.known[`${index}.example`] = [`192.0.2.${index % 256}`]
  const asked = t.capture(names, 'addresses', names.addresses)
  await fleet(...Array.from({ length: 1000 }, (_, index) => machine(`${index}.example`, 1000 - index)))
  t.equal(asked().length, 16, 'a hostile answer does not use up all descriptors')
  t.equal(addresses()[0], `192.0.2.${999 % 256} 1080`, 'those that come first')
})

t.test('gateways are shared out by weight, and one that loses its HAG only moves then', async (t) => {
  const ranked = (weights: number[]) =>
    weights.map((weight, index) => ({ hag: { address: `203.0.113.${index}`, port: 1080 }, priority: [0, 0] as const, weight }))
  const homes = Array.from({ length: 4000 }, (_, index) => `home ${index}`)
  const chosen = (weights: number[]) => homes.map((home) => inOrder(ranked(weights), home)[0]?.hag.address)
  const three = chosen([1, 2, 1])
  const share = three.filter((address) => address === '203.0.113.1').length / homes.length
  t.ok(Math.abs(share - 0.5) < 0.04, `half of them choose the one with half of the weight: ${share}`)
  t.same(chosen([1, 2, 1]), three, 'and always the same one')
  const two = homes.map((home) => inOrder(ranked([1, 2, 1]).slice(0, 2), home)[0]?.hag.address)
  t.ok(two.every((address, index) => three[index] === '203.0.113.2' || three[index] === address))
})

t.test('of one priority are both families of a name, and what an SRV answer calls equal', async (t) => {
  const { made, names } = directory(entry({ name: 'hag.example' }), entry({ name: '_socks._tcp.example' }))
  names.known = { 'hag.example': ['192.0.2.1', '2001:db8::1'], 'a.example': ['192.0.2.3'], 'b.example': ['192.0.2.4'] }
  const machine = (name: string, priority: number) => ({ name, port: 1080, priority, weight: 1 })
  const priorities = async (one: number, other: number) => {
    names.records['_socks._tcp.example'] = [machine('a.example', one), machine('b.example', other)]
    const isChanged = await made.refresh()
    return { isChanged, priorities: made.hags.map(({ priority }) => priority) }
  }
  t.same(await priorities(1, 1), { isChanged: true, priorities: ['0.0', '0.0', '1.1', '1.1'] })
  t.same(await priorities(1, 1), { isChanged: false, priorities: ['0.0', '0.0', '1.1', '1.1'] })
  const before = made.hags.map(({ hag }) => hag)
  const isInOrder = before[2]?.address === '192.0.2.3'
  t.same(await priorities(isInOrder ? 1 : 2, isInOrder ? 2 : 1), { isChanged: true, priorities: ['0.0', '0.0', '1.1', '1.2'] })
  t.same(
    made.hags.map(({ hag }) => hag),
    before,
    'in the order as before',
  )
})

t.test('a name is asked for over each WAN, until one answers', async (t) => {
  const asked: string[] = []
  const silent = (signal: AbortSignal) =>
    new Promise<never>((_, reject) =>
      signal.addEventListener('abort', () => reject(Object.assign(new Error('x'), { code: 'ECANCELLED' }))),
    )
  const names: Names = {
    async addresses(_, signal, from) {
      asked.push(from?.address4 ?? 'system')
      return from?.address4 === '10.2.0.2' ? ['203.0.113.3'] : silent(signal)
    },
    services: async () => [],
  }
  const log = memoryLog()
  const sources = () => [{ address4: '10.1.0.2' }, { address4: '10.2.0.2' }, { address4: '10.3.0.2' }]
  const made = new HagDirectory({
    entries: [entry({ name: 'hag.example' })],
    names,
    emit: toLog(log),
    pace: paceOf(),
    identity: 'one home',
    sources,
  })
  const startedAt = performance.now()
  t.equal(await made.refresh(), true)
  t.ok(performance.now() - startedAt < 2000)
  t.same(asked.slice(0, 3), ['system', '10.1.0.2', '10.2.0.2'])
  t.same(
    made.hags.map(({ hag }) => hag.address),
    ['203.0.113.3'],
  )
  t.same(log.lines, [])
})
