import t from 'tap'
import { PathTable } from '../../src/gateway/connections/path-table.js'
import { dsl, first, lte, pathsOf, second, six, pathTexts as text } from '../support/steering.js'

t.test(
  'to a HAG first, then direct in the family of the destination, unless connections may not go around the HAGs',
  async (t) => {
    const wans = [{ ...dsl, address6: '2001:db8:1::2' }, lte]
    for (const onHagDown of ['direct', 'reject'] as const) {
      const pathTable = new PathTable({ onHagDown })
      pathTable.use(pathsOf({ wans, hags: [first, six], onHagDown }))
      const hagPaths = ['203.0.113.3 dsl', '203.0.113.3 lte', '2001:db8::3 dsl']
      const isDirect = onHagDown === 'direct'
      t.same(text(pathTable.pathsTo('198.51.100.7')), [...hagPaths, ...(isDirect ? ['direct dsl', 'direct lte'] : [])])
      t.same(text(pathTable.pathsTo('2001:db8::7')), [...hagPaths, ...(isDirect ? ['direct dsl'] : [])])
      t.same(text(pathTable.directPathsTo('198.51.100.7')), ['direct dsl', 'direct lte'])
      t.same(text(pathTable.preparable), ['203.0.113.3 dsl', '203.0.113.3 lte'])
      t.same(
        [six.address, '198.51.100.7'].map((address) => pathTable.isHag(address)),
        [true, false],
      )
    }
  },
)

t.test('a spare path that failed does not take the decision back from the engine; the first one does', async (t) => {
  const pathTable = new PathTable({ onHagDown: 'direct' })
  pathTable.use(pathsOf({ hags: [first], pipelining: [first] }))
  const [best, spare] = pathTable.pathsTo('198.51.100.7')
  const failure = { code: 'ECONNRESET', errno: 104, syscall: 'recv' }
  const fails = (path: typeof best) =>
    path !== undefined &&
    pathTable.recordOutcome(path, { type: 'failed', connection: 1, attempt: 0, left: 0, stage: 'greeting', failure })
  fails(spare)
  t.equal(pathTable.fastPath, best)
  fails(best)
  t.equal(pathTable.fastPath, undefined)
})

t.test('a path in its cool-down stays there when the order changes', async (t) => {
  const clock = { now: 1000 }
  const pathTable = new PathTable({ onHagDown: 'reject', now: () => clock.now })
  pathTable.use(pathsOf({ hags: [first], onHagDown: 'reject' }))
  const [path] = pathTable.pathsTo('198.51.100.7')
  const failure = { code: 'ECONNRESET', errno: 104, syscall: 'recv' }
  if (path !== undefined)
    pathTable.recordOutcome(path, { type: 'failed', connection: 1, attempt: 0, left: 0, stage: 'greeting', failure })
  t.same(text(pathTable.pathsTo('198.51.100.7')), ['203.0.113.3 lte', '203.0.113.3 dsl'])
  pathTable.use(pathsOf({ hags: [first, second], onHagDown: 'reject' }))
  t.equal(text(pathTable.pathsTo('198.51.100.7')).at(-1), '203.0.113.3 dsl')
  clock.now += 5001
  t.equal(text(pathTable.pathsTo('198.51.100.7'))[0], '203.0.113.3 dsl')
})

t.test('around the HAGs: in the order given, and a WAN that lost the race twice in a row comes last for a while', async (t) => {
  const clock = { now: 1000 }
  const pathTable = new PathTable({ onHagDown: 'direct', now: () => clock.now })
  const use = () => pathTable.use(pathsOf({ hags: [first], down: [first] }))
  use()
  const order = () => text(pathTable.pathsTo('198.51.100.7'))
  const [path] = pathTable.pathsTo('198.51.100.7')
  if (path === undefined) throw new Error('no path')
  const local = { address: '10.1.0.2', port: 1 }
  const opened = { type: 'opened', connection: 1, attempt: 0, local, protocol: 'tcp' } as const
  t.same(order(), ['direct dsl', 'direct lte'])
  pathTable.recordLostRace(path)
  pathTable.recordOutcome(path, opened)
  pathTable.recordLostRace(path)
  t.same(order(), ['direct dsl', 'direct lte'], 'one lost SYN')
  pathTable.recordLostRace(path)
  use()
  t.same(order(), ['direct lte', 'direct dsl'])
  t.same(text(pathTable.directPathsTo('198.51.100.7')), ['direct lte', 'direct dsl'])
  clock.now += 5001
  t.same(order(), ['direct dsl', 'direct lte'], 'it gets another try')
  pathTable.beginTrial(path)
  t.same(order(), ['direct lte', 'direct dsl'], 'by one connection')
  pathTable.recordOutcome(path, opened)
  t.same(order(), ['direct dsl', 'direct lte'])
})
