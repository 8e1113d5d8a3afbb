/** Whatever users meet and HAGs reply about IPv6, whenever it is asked. */
import fc from 'fast-check'
import t from 'tap'
import type { SocketAddress } from '../../src/base/address.js'
import { Ipv6 } from '../../src/gateway/hags/ipv6.js'
import { ipv6QuestionTo } from '../../src/gateway/steering/schedule.js'
import { dsl, first, home } from '../support/steering.js'

const step = fc.oneof(
  fc.record({ type: fc.constant('wait' as const), ms: fc.constantFrom(500, 1000, 9000, 20_000, 400_000, 4_000_000) }),
  fc.record({ type: fc.constant('refused' as const), times: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ type: fc.constant('second' as const) }),
  fc.record({ type: fc.constant('lacks' as const), is: fc.boolean() }),
  fc.record({ type: fc.constant('serves' as const), is: fc.boolean() }),
)
const own = { address: '2001:db8:1::2', port: 12345 }
const destination = { address: '2001:db8:9::7', port: 443 }
const nobody = '2001:db8::1'
const longestTrialMs = 60 * 60_000

t.test('it is asked seldom, believed once, and tried again', async (t) => {
  const property = fc.asyncProperty(
    fc.boolean(),
    fc.boolean(),
    fc.array(step, { maxLength: 60, size: 'max' }),
    async (metered, hasOwn, steps) => {
      const core = home({ wans: [dsl], hags: [first], metered: metered ? ['dsl'] : [] })
      let lacks = false
      let isServing = false
      let refusals = 0
      let uncarriedSince: number | undefined
      const asked: { what: string; at: number }[] = []
      const faults: string[] = []
      const relayed = { remote: first, received: 1, ageMs: 1, client: { address: '2001:db8:7::2' } }
      const ipv6 = new Ipv6({
        engine: {
          inspect: async () => [relayed as never],
          stats: () => ({ relaying: isServing ? 1 : 0 }) as never,
          connect: undefined as never,
        },
        hags: () => core.target.usableHags,
        isReachable: () => true,
        question: (hag) => ipv6QuestionTo(core.state, hag, core.now),
        own: () => (hasOwn ? [own] : []),
        report: (fact) => core.take(fact),
        async ask(_, __, how: { destination: SocketAddress }) {
          const what = how.destination.address
          const last = asked.findLast((one) => one.what === what)
          const minMs = what === nobody ? 1000 : metered ? 15 * 60_000 : 10_000
          // What it could not reach is asked for again, to see whether it has been mended.
          const { isIpv6Carried: isAboutUsers } = core.target
          if (isAboutUsers && what === own.address && last !== undefined) faults.push('its own address twice')
          if (last !== undefined && core.now - last.at < minMs) faults.push(`${what} after ${core.now - last.at} ms`)
          if (what === nobody && isServing) faults.push('what a user proves')
          if (isAboutUsers && what !== own.address && refusals < 2) faults.push('without a reason')
          asked.push({ what, at: core.now })
          return lacks ? 'NetworkUnreachable' : 'Granted'
        },
      })
      for (const one of steps) {
        const { isIpv6Carried: wasCarried } = core.target
        const askedBefore = asked.length
        if (one.type === 'wait') core.now += one.ms
        else if (one.type === 'lacks') lacks = one.is
        else if (one.type === 'serves') isServing = one.is
        else if (one.type === 'second') {
          core.take({ type: 'tick' })
          await ipv6.look()
        } else
          for (let times = 0; times < one.times; times++) {
            refusals++
            core.take({ type: 'ipv6-unreachable', hag: first, destination })
            await ipv6.lookInto(first)
          }
        const { isIpv6Carried } = core.target
        if (wasCarried && !isIpv6Carried && !lacks) faults.push('dismissed although it can')
        if (isIpv6Carried) uncarriedSince = undefined
        else uncarriedSince ??= core.now
        const isOverdue = uncarriedSince !== undefined && core.now - uncarriedSince > longestTrialMs
        if (one.type === 'second' && isOverdue) faults.push('never tried again')
        const isAskedNow = one.type === 'second' && asked.length > askedBefore
        if (isAskedNow && !lacks && !isIpv6Carried) faults.push('not believed')
      }
      if (faults.length > 0) t.comment(faults.join(', '))
      return faults.length === 0
    },
  )
  await fc.assert(property, { numRuns: 300 })
  t.pass()
})
