/** The core learns which HAGs reach IPv6 destinations as the class `Ipv6` does. */
import fc from 'fast-check'
import t from 'tap'
import { Ipv6 } from '../../src/gateway/hags/ipv6.js'
import { ipv6Question } from '../../src/gateway/steering/ipv6.js'
import { dsl, first, home, overDsl } from '../support/steering.js'

const step = fc.oneof(
  fc.record({ type: fc.constant('wait' as const), ms: fc.constantFrom(500, 1000, 9000, 20_000, 400_000, 4_000_000) }),
  fc.record({ type: fc.constant('refused' as const), times: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ type: fc.constant('second' as const) }),
  fc.record({ type: fc.constant('lacks' as const), is: fc.boolean() }),
  fc.record({ type: fc.constant('serves' as const), is: fc.boolean() }),
)
const own = { address: '2001:db8:1::2', port: 12345 }
const destination = { address: '2001:db8:9::7', port: 443 }

t.test('whatever users meet and HAGs reply, whenever it is asked', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.boolean(),
      fc.array(step, { maxLength: 60, size: 'max' }),
      async (metered, hasOwn, steps) => {
        const core = home({ wans: [dsl], hags: [first], metered: metered ? ['dsl'] : [] })
        let lacks = false
        let isServing = false
        let asked = { old: 0, core: 0 }
        const relayed = { remote: first, received: 1, ageMs: 1, client: { address: '2001:db8:7::2' } }
        const old = new Ipv6({
          engine: {
            inspect: async () => [relayed as never],
            stats: () => ({ relaying: isServing ? 1 : 0 }) as never,
            connect: undefined as never,
          },
          hags: () => [first],
          own: () => (hasOwn ? [own] : []),
          pathTo: () => ({ bind: overDsl.bind, metered }),
          log: { info() {} },
          onChange() {},
          async ask() {
            asked = { ...asked, old: asked.old + 1 }
            return lacks ? 'NetworkUnreachable' : 'Granted'
          },
          now: () => core.now,
        })
        const ask = (wanted: readonly string[]) => {
          const ipv6 = core.state.hags[0]?.ipv6
          const question = ipv6Question(ipv6, metered, core.now)
          if (question === undefined || !wanted.includes(question)) return
          core.take({ type: 'hag-ipv6-asked', hag: first, destination: question === 'own-address' ? own : destination })
          const isProven = question === 'nobody' && isServing
          if (!isProven) asked = { ...asked, core: asked.core + 1 }
          const verdict = isProven ? 'serves-user' : lacks ? 'lacks' : 'reaches'
          core.take({ type: 'hag-ipv6-answered', hag: first, verdict })
        }
        for (const one of steps) {
          if (one.type === 'wait') core.now += one.ms
          else if (one.type === 'lacks') lacks = one.is
          else if (one.type === 'serves') isServing = one.is
          else if (one.type === 'second') {
            await old.look()
            core.take({ type: 'tick' })
            ask(['destination', ...(hasOwn ? ['own-address'] : [])])
          } else
            for (let times = 0; times < one.times; times++) {
              await old.refused(first, destination)
              core.take({ type: 'ipv6-unreachable', hag: first, destination })
              ask(['nobody'])
            }
          if (old.isCarried !== core.target.isIpv6Carried || asked.old !== asked.core) return false
        }
        return true
      },
    ),
    { numRuns: 300 },
  )
  t.pass()
})
