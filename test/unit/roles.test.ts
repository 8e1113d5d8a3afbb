import t from 'tap'
import { initial, select } from '../../src/gateway/roles/roles.js'
import type { Role, Selection } from '../../src/gateway/roles/selection.js'
import { lineOf } from '../../src/telemetry/events.js'

interface Second {
  dsl?: number
  lte?: number
  role?: Role
  down?: string[]
  exhausted?: string[]
  rtt?: number
}
const mbit = 125_000

/** Simulated seconds, rates in Mbit/s; returns who is used after each, and what was said. */
function walk(seconds: ((used: ReadonlySet<string>) => Second)[]) {
  let state: Selection = initial(['dsl', 'lte'])
  const used: string[] = []
  const said: string[] = []
  for (const [second, of] of seconds.entries()) {
    const { dsl = 0, lte = 0, role = 'normal', down = [], exhausted = [], rtt = 70 } = of(state.inUse)
    const report = (name: string, role: Role, rate: number, rttMs: number) => ({
      name,
      role,
      rttMs,
      receivedPerSecond: rate * mbit,
      sentPerSecond: 0,
      isUsable: !down.includes(name),
      volumeExhausted: exhausted.includes(name),
    })
    state = select(state, [report('dsl', 'normal', dsl, 30), report('lte', role, lte, rtt)], second * 1000)
    used.push([...state.inUse].sort().join('+'))
    for (const [wan, reason] of state.reasons)
      said.push(lineOf({ type: 'wan-use', wan, isInUse: state.inUse.has(wan), reason }).text)
  }
  return { used, said: said.join('\n') }
}
const during = (seconds: number, of: (used: ReadonlySet<string>) => Second) => Array.from({ length: seconds }, () => of)

t.test('a backup is used while no normal WAN is up', async (t) => {
  const role = 'backup'
  const { used, said } = walk([
    () => ({ role }),
    () => ({ role, down: ['dsl'] }),
    () => ({ role }),
    () => ({ role, down: ['dsl', 'lte'] }),
  ])
  t.same(used, ['dsl', 'lte', 'dsl', 'dsl'], 'where nothing is up, what is no backup stays')
  t.match(said, /backup WAN lte takes over: no better WAN is up/)
})

t.test('a WAN that comes for the first time is in use, and only later again', async (t) => {
  const both = { down: [] }
  const { said } = walk([() => ({ down: ['lte'] }), () => ({ down: ['lte'] }), () => both, () => ({ down: ['lte'] }), () => both])
  t.equal(said.match(/WAN lte is in use$/m)?.length, 1)
  t.equal(said.match(/WAN lte is in use again/g)?.length, 1)
})

t.test('while no WAN is up nothing is said to be in use, and nothing is tried', async (t) => {
  const down = ['dsl', 'lte']
  const { used, said } = walk([
    // Full of what others send; then one after the other is gone.
    ...during(10, () => ({ dsl: 20, lte: 1, rtt: 900 })),
    () => ({ down: ['dsl'], lte: 1 }),
    ...during(10, () => ({ down, dsl: 4, lte: 0, rtt: 900 })),
    () => ({ down: ['lte'] }),
    () => ({}),
  ])
  t.equal(used.at(-3), 'dsl+lte')
  t.equal(used.at(-1), 'dsl+lte')
  t.equal(said, 'WAN lte is in use again')
})

t.test('a used-up volume makes a backup', async (t) => {
  const exhausted = ['lte']
  const { used, said } = walk([() => ({}), () => ({ exhausted }), () => ({ exhausted, down: ['dsl'] }), () => ({})])
  t.same(used, ['dsl+lte', 'dsl', 'lte', 'dsl+lte'])
  t.match(said, /WAN lte is out of use: its monthly volume is used up/)
})

t.test('an overflow WAN that had joined stays while the full line is down, and nothing else is said', async (t) => {
  const role = 'overflow'
  const { used, said } = walk([
    ...during(8, (used) => ({ dsl: 19, lte: used.has('lte') ? 19 : 0, role })),
    ...during(10, () => ({ lte: 1, role, down: ['dsl'] })),
  ])
  t.same(new Set(used.slice(8)), new Set(['lte']))
  t.notMatch(said, /leaves/)
})

t.test('an overflow WAN joins a full line, stays while it is needed, and leaves', async (t) => {
  const role = 'overflow'
  const { used, said } = walk([
    ...during(3, () => ({ role })),
    ...during(30, (now) => ({ role, dsl: 19, lte: now.has('lte') ? 28 : 0 })),
    ...during(10, () => ({ role, dsl: 1 })),
  ])
  t.match(said, /overflow WAN lte joins: dsl has been full for 3 s at 19\.0 Mbit\/s/)
  t.equal(used[5], 'dsl+lte')
  t.same(new Set(used.slice(5, 33)), new Set(['dsl+lte']), 'without flapping')
  t.equal(used.at(-1), 'dsl')
  t.match(said, /overflow WAN lte leaves: dsl can carry it alone/)
})

t.test('a slow server calls it less and less often', async (t) => {
  const role = 'overflow'
  const { used, said } = walk(during(1800, (now) => ({ role, dsl: now.has('lte') ? 1 : 2, lte: now.has('lte') ? 1 : 0 })))
  const share = used.filter((one) => one === 'dsl+lte').length / used.length
  t.ok(share < 0.03, `${(share * 100).toFixed(1)} % of the time`)
  t.match(said, /leaves: the sum was 2\.0 Mbit\/s without it and is 2\.0 Mbit\/s with it/)
})

t.test('a WAN that drags is taken out, ever longer, and both figures are said', async (t) => {
  const drags = (now: ReadonlySet<string>) => (now.has('lte') ? { dsl: 5, lte: 0.2, rtt: 800 } : { dsl: 19, rtt: 600 })
  const { used, said } = walk([...during(5, () => ({ dsl: 19, lte: 0.3, rtt: 600 })), ...during(600, drags)])
  t.match(said, /WAN lte is taken out for a trial: with it the sum is \d.* Mbit\/s, dsl alone carried 1\d\.\d Mbit\/s/)
  t.match(said, /WAN lte stays out for 1 min: the sum was .* with it and is 19\.0 Mbit\/s without it/)
  t.match(said, /stays out for 2 min/)
  t.match(said, /stays out for 4 min/)
  t.ok(used.filter((one) => one === 'dsl').length > 500)
})

t.test('a WAN that does not drag comes back from the trial', async (t) => {
  const { used, said } = walk([
    ...during(5, () => ({ dsl: 19, lte: 0.3, rtt: 600 })),
    ...during(60, () => ({ dsl: 2, lte: 0.1, rtt: 600 })),
  ])
  t.match(said, /WAN lte is in use again: the sum is not much higher without it/)
  t.equal(used.at(-1), 'dsl+lte')
  t.equal(said.match(/taken out/g)?.length, 1, 'and is left alone for some minutes')
})

t.test('clients that ask for little make nobody drag', async (t) => {
  const full = during(5, () => ({ dsl: 19, lte: 0.3, rtt: 90 }))
  const { said } = walk([...full, ...during(60, () => ({ dsl: 2, lte: 0.1, rtt: 95 }))])
  t.equal(said, '', 'at three times the round trip, but less than would hold anybody up')
})

t.test('clients that ask for a little more during a trial keep nobody out', async (t) => {
  const { used, said } = walk([
    ...during(5, () => ({ dsl: 19, lte: 0.3, rtt: 600 })),
    ...during(250, (now) => ({ dsl: now.has('lte') ? 1 : 9, lte: 0.05, rtt: 600 })),
  ])
  t.match(said, /taken out for a trial/)
  t.match(said, /WAN lte is in use again/)
  t.equal(used.at(-1), 'dsl+lte')
})
