import t from 'tap'
import { PathTable } from '../../src/gateway/connections/path-table.js'
import { wanPath } from '../support/wan-path.js'

const first = { address: '203.0.113.3', port: 1080 }
const second = { address: '203.0.113.4', port: 1080 }
const six = { address: '2001:db8::3', port: 1080 }
const dsl = wanPath('dsl', '10.1.0.2')
const lte = wanPath('lte', '10.2.0.2', { rttMs: 70 })
const dsl6 = wanPath('dsl', '2001:db8:1::2')
const text = (ways: ReturnType<PathTable['pathsTo']>) => ways.map(({ hag, wan }) => `${hag?.address ?? 'direct'} ${wan}`)

t.test('each HAG over every WAN that has an address of its family, then direct in the family of the destination', async (t) => {
  const pathTable = new PathTable({ onHagDown: 'direct' })
  pathTable.use({ hags: [first, six], pipelines: () => false, hagsDown: [], paths: { 4: [lte, dsl], 6: [dsl6] } })
  const hagWays = ['203.0.113.3 lte', '203.0.113.3 dsl', '2001:db8::3 dsl']
  t.same(text(pathTable.pathsTo('198.51.100.7')), [...hagWays, 'direct lte', 'direct dsl'])
  t.same(text(pathTable.pathsTo('2001:db8::7')), [...hagWays, 'direct dsl'])
  t.same(text(pathTable.directPathsTo('198.51.100.7')), ['direct lte', 'direct dsl'])
})

t.test('a WAN that is down comes after every HAG over the others', async (t) => {
  const pathTable = new PathTable({ onHagDown: 'reject' })
  pathTable.use({
    hags: [first, second],
    pipelines: () => false,
    hagsDown: [],
    paths: { 4: [dsl, { ...lte, usable: false }], 6: [] },
  })
  t.same(text(pathTable.pathsTo('198.51.100.7')), ['203.0.113.3 dsl', '203.0.113.4 dsl', '203.0.113.3 lte', '203.0.113.4 lte'])
})

t.test('a HAG that is down: not tried with direct, tried last with reject', async (t) => {
  for (const [onHagDown, ways] of [
    ['direct', ['203.0.113.4 dsl', 'direct dsl']],
    ['reject', ['203.0.113.4 dsl', '203.0.113.3 dsl']],
  ] as const) {
    const pathTable = new PathTable({ onHagDown })
    pathTable.use({ hags: [second], pipelines: () => false, hagsDown: [first], paths: { 4: [dsl], 6: [] } })
    t.same(text(pathTable.pathsTo('198.51.100.7')), ways)
  }
})

t.test('patience is three round trips, within bounds, and longer before a HAG is gone around', async (t) => {
  const pathTable = new PathTable({ onHagDown: 'direct' })
  const paths = [dsl, lte, wanPath('sat', '10.3.0.2', { rttMs: 600 }), wanPath('new', '10.4.0.2', { rttMs: undefined })]
  pathTable.use({ hags: [first], pipelines: () => false, hagsDown: [], paths: { 4: paths, 6: [] } })
  t.same(
    pathTable.pathsTo('198.51.100.7').map(({ patienceMs }) => patienceMs),
    [150, 210, 1000, 1000, 150, 210, 1000, 300],
  )
})

t.test('where MPTCP vanishes, a HAG is reached by TCP', async (t) => {
  const pathTable = new PathTable({ onHagDown: 'direct' })
  pathTable.use({ hags: [first], pipelines: () => false, hagsDown: [], paths: { 4: [lte, { ...dsl, protocol: 'tcp' }], 6: [] } })
  t.same(
    pathTable.pathsTo('198.51.100.7').map(({ protocol }) => protocol),
    ['mptcp', 'tcp', 'tcp', 'tcp'],
  )
})

t.test('a spare way that failed does not take the decision back from the engine; the first one does', async (t) => {
  const pathTable = new PathTable({ onHagDown: 'direct' })
  pathTable.use({ hags: [first], pipelines: () => true, hagsDown: [], paths: { 4: [dsl, lte], 6: [] } })
  const [best, spare] = pathTable.pathsTo('198.51.100.7')
  const failure = { code: 'ECONNRESET', errno: 104, syscall: 'recv' }
  const fails = (way: typeof best) =>
    way !== undefined &&
    pathTable.recordOutcome(way, { type: 'failed', connection: 1, attempt: 0, left: 0, stage: 'greeting', failure })
  fails(spare)
  t.equal(pathTable.fastPath, best)
  fails(best)
  t.equal(pathTable.fastPath, undefined)
})

t.test('a way that rests goes on resting when the order changes', async (t) => {
  const clock = { now: 1000 }
  const pathTable = new PathTable({ onHagDown: 'reject', now: () => clock.now })
  pathTable.use({ hags: [first], pipelines: () => false, hagsDown: [], paths: { 4: [dsl, lte], 6: [] } })
  const [way] = pathTable.pathsTo('198.51.100.7')
  const failure = { code: 'ECONNRESET', errno: 104, syscall: 'recv' }
  if (way !== undefined)
    pathTable.recordOutcome(way, { type: 'failed', connection: 1, attempt: 0, left: 0, stage: 'greeting', failure })
  t.same(text(pathTable.pathsTo('198.51.100.7')), ['203.0.113.3 lte', '203.0.113.3 dsl'])
  pathTable.use({ hags: [first, second], pipelines: () => false, hagsDown: [], paths: { 4: [dsl, lte], 6: [] } })
  t.equal(text(pathTable.pathsTo('198.51.100.7')).at(-1), '203.0.113.3 dsl')
  clock.now += 5001
  t.equal(text(pathTable.pathsTo('198.51.100.7'))[0], '203.0.113.3 dsl')
})

t.test('around the HAGs: in the order given, and a WAN that was overtaken twice in a row comes last for a while', async (t) => {
  const clock = { now: 1000 }
  const pathTable = new PathTable({ onHagDown: 'direct', now: () => clock.now })
  const use = () =>
    pathTable.use({
      hags: [],
      pipelines: () => false,
      hagsDown: [first],
      paths: { 4: [lte], 6: [] },
      direct: { 4: [dsl, lte], 6: [] },
    })
  use()
  const order = () => text(pathTable.pathsTo('198.51.100.7'))
  const [way] = pathTable.pathsTo('198.51.100.7')
  if (way === undefined) throw new Error('no way')
  const local = { address: '10.1.0.2', port: 1 }
  const opened = { type: 'opened', connection: 1, attempt: 0, local, protocol: 'tcp' } as const
  t.same(order(), ['direct dsl', 'direct lte'])
  pathTable.recordLostRace(way)
  pathTable.recordOutcome(way, opened)
  pathTable.recordLostRace(way)
  t.same(order(), ['direct dsl', 'direct lte'], 'one lost SYN')
  pathTable.recordLostRace(way)
  use()
  t.same(order(), ['direct lte', 'direct dsl'])
  t.same(text(pathTable.directPathsTo('198.51.100.7')), ['direct lte', 'direct dsl'])
  clock.now += 5001
  t.same(order(), ['direct dsl', 'direct lte'], 'it gets another try')
  pathTable.beginTrial(way)
  t.same(order(), ['direct lte', 'direct dsl'], 'by one connection')
  pathTable.recordOutcome(way, opened)
  t.same(order(), ['direct dsl', 'direct lte'])
})
