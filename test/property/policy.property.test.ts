import fc from 'fast-check'
import t from 'tap'
import { type Cidr, familyOf, isInside, parseAddress, parseCidr } from '../../src/base/address.js'
import { PathTable } from '../../src/gateway/connections/path-table.js'
import { Bypass } from '../../src/gateway/connections/policy.js'
import { Sessions } from '../../src/gateway/connections/session.js'
import { FakeEngine } from '../support/fake-engine.js'
import { type Answer, failure, settle } from '../support/far-side.js'
import { memoryLog } from '../support/memory-log.js'
import { dsl, lte, pathsOf } from '../support/steering.js'
import { VirtualTime } from '../support/virtual-time.js'

const wans = [{ ...dsl, address6: '2001:db8:1::2' }, lte]
const own = ['192.168.1.1', '10.1.0.2', '10.2.0.2', '2001:db8:1::2']
const hags = [
  { address: '203.0.113.3', port: 1080 },
  { address: '2001:db8::4', port: 1080 },
]
const bypassed = ['192.0.2.0/24', '2001:db8:b::/48'].map((text) => parseCidr(text) as Cidr)

const address = fc.oneof(
  fc.constantFrom(...own, ...hags.map((hag) => hag.address), '192.0.2.9', '2001:db8:b::9', '192.168.1.20'),
  fc.ipV4(),
  fc.ipV6().map((text) => parseAddress(text)?.toString() ?? '2001:db8::1'),
)
const port = fc.oneof(fc.constantFrom(12_345, 1080, 443), fc.integer({ min: 1, max: 65_535 }))
const answer = fc.constantFrom<Answer[]>(
  'opened',
  failure('connect', 'ETIMEDOUT'),
  failure('connect', 'ECONNREFUSED'),
  failure('greeting', 'EPROTO'),
  failure('authentication', 'EACCES'),
  failure('request', 'ETIMEDOUT'),
  ...[1, 2, 3, 4, 5, 6, 7, 8].map((reply) => failure('request', 'SOCKS_REPLY', reply)),
)
const connection = fc.record({ client: address, destination: address, port })

// On a busy machine a race would go on to the next path, and come back to one that was given up meanwhile.
const time = new VirtualTime()
t.before(() => time.start())
t.teardown(() => time.end())

t.test('no loop, no bypassed destination through a HAG, and every connection ends relayed or reset', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(connection, { minLength: 1, maxLength: 4 }),
      fc.array(answer, { minLength: 1, maxLength: 8 }),
      fc.constantFrom<('direct' | 'reject')[]>('direct', 'reject'),
      async (connections, answers, onHagDown) => {
        let next = 0
        const far = { own, answer: () => answers[next++ % answers.length] as Answer }
        const engine: FakeEngine = new FakeEngine({ onEvents: (events) => events.map((event) => sessions.handle(event)) }, far)
        const log = memoryLog()
        const pathTable = new PathTable({ onHagDown })
        pathTable.use(pathsOf({ wans, hags, onHagDown, silentOver: [lte.address4] }))
        const isOwn = (text: string) => own.includes(text)
        const sessions = new Sessions({
          engine,
          pathTable,
          bypass: new Bypass({ bypass: bypassed }),
          connectTimeoutMs: 3000,
          report: () => {},
          log,
        })
        const made = connections.map((one) => ({ ...one, id: engine.accept(one) }))
        await settle()
        for (const { id, client, destination, port } of made) {
          const specs = engine.opens.filter(({ connection }) => connection === id).map(({ spec }) => spec)
          // What we open has one of our own addresses as source, by which the engine knows it if it comes back (`refuseLoops`).
          for (const spec of specs) {
            t.ok(isOwn(spec.bind as string), 'refused when it comes back')
            t.equal(familyOf(spec.bind as string), familyOf(spec.remote.address), 'source of the family of the far end')
          }
          if (isOwn(client) || (isOwn(destination) && port === 12_345)) t.same(specs, [], 'never opened')
          if (isInside(destination, bypassed)) t.ok(specs.every(({ socks }) => socks === undefined))
          // A service on a HAG's own machine that the HAG refuses is reached without it.
          const isHags = hags.some((hag) => hag.address === destination)
          if (onHagDown === 'reject' && !isHags && !isInside(destination, bypassed))
            t.ok(specs.every(({ socks }) => socks !== undefined))
          t.equal(
            new Set(specs.map((spec) => `${spec.remote.address} ${spec.bind} ${spec.socks === undefined}`)).size,
            specs.length,
            'no path twice',
          )
        }
        const { connections: open, relaying } = engine.stats()
        t.equal(open, relaying, 'nobody is left waiting')
      },
    ),
    { numRuns: 150 },
  )
})
