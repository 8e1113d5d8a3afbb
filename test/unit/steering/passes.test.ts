/** What a pass of the network set-up is given, and what follows from what it did, in virtual time. */
import t, { type Test } from 'tap'
import { parseGateway } from '../../../src/config/load.js'
import { Passes } from '../../../src/gateway/steering/passes.js'
import type { NetworkOptions, NetworkPlan } from '../../../src/network/state.js'
import type { StepKind } from '../../../src/network/step.js'
import { toLog } from '../../../src/telemetry/events.js'
import { memoryLog } from '../../support/memory-log.js'
import { paceOf } from '../../support/pace.js'
import { dsl, first, home, lte, silences } from '../../support/steering.js'
import { virtualTime } from '../../support/virtual-time.js'

const planned = [dsl, lte]
const addresses = [dsl.address4, lte.address4]

async function start(t: Test, { onHagDown = 'direct' as 'direct' | 'reject' } = {}) {
  const time = virtualTime(t)
  const core = home({ hags: [first], onHagDown })
  const log = memoryLog()
  const told: string[] = []
  const far = { steps: [] as StepKind[], wans: planned, redirects: true }
  const passes: (NetworkOptions & { without: string[] })[] = []
  const tested = new Passes({
    pace: paceOf(),
    config: parseGateway(
      `{lan: {interfaces: [br0]}, wans: [{name: dsl, interface: dsl0}, {name: lte, interface: wwan0}], hags: [{address: 203.0.113.3}], on_hag_down: ${onHagDown}}`,
      'g.yaml',
    ),
    network: {
      async apply(_config, options = {}): Promise<NetworkPlan> {
        passes.push({ ...options, without: addresses.filter((address) => options.withoutEndpoint?.has(address)) })
        const { wans, redirects } = far
        const steps = far.steps.splice(0).map((kind) => ({ kind, text: '', action: { argv: [] }, undo: [] }))
        return { steps, wans, redirects, notes: [] }
      },
    },
    steer: {
      get target() {
        return core.target
      },
      report(fact) {
        told.push(fact.type)
        if (core.take(fact).some(({ type }) => type === 'reconcile')) tested.schedule()
      },
      passBegins() {},
      passEnds({ areAdded, areDeleted }) {
        if (areAdded) told.push('endpoints added')
        if (areDeleted) told.push('endpoints deleted')
      },
    },
    onWans: () => told.push('WANs'),
    onRoutes: () => told.push('routes'),
    emit: toLog(log),
  })
  const end = new AbortController()
  const running = tested.run({ wans: planned, notes: [] }, end.signal)
  const stop = async () => {
    end.abort()
    await time.advance(2000)
    await running
  }
  t.teardown(stop)
  /** The passes of the next second. */
  const next = async () => {
    passes.splice(0)
    await time.advance(1000)
    return passes
  }
  return { time, core, log, told, far, tested, next, stop, passes }
}

t.test('a pass is given what the target wants then, also what changes meanwhile', async (t) => {
  const { core, tested, next } = await start(t)
  tested.schedule()
  const [pass] = await next()
  t.match(pass, { redirect: false, hags: [first], hagFamilies: [4], best: { 4: 'dsl' }, without: [] })
  t.equal(pass?.unserved?.size, 0)
  silences(core, lte.address4)
  t.equal(pass?.withoutEndpoint?.has(lte.address4), true)
})

t.test('IPv6 that no HAG reaches is not redirected, or refused', async (t) => {
  for (const [onHagDown, text] of [
    ['direct', 'no HAG can reach IPv6 destinations: IPv6 is not redirected, and goes as it did before'],
    ['reject', 'no HAG can reach IPv6 destinations: IPv6 connections are refused (on_hag_down)'],
  ] as const)
    await t.test(onHagDown, async (t) => {
      const { core, tested, next } = await start(t, { onHagDown })
      core.take({ type: 'ipv6-unreachable', hag: first, destination: { address: '2001:db8:9::7', port: 443 } })
      core.take({ type: 'hag-ipv6-answered', hag: first, verdict: 'lacks' })
      tested.schedule()
      const [pass] = await next()
      t.same([...(pass?.unserved ?? [])], [[6, text]])
    })
})

t.test('an endpoint that is to be made anew is away with one pass, and back with the next', async (t) => {
  const { core, tested, next, told } = await start(t)
  core.take({ type: 'endpoint-to-remake', bind: lte.address4 })
  tested.schedule()
  t.same(
    (await next()).map(({ without }) => without),
    [[lte.address4], []],
  )
  t.same(told, ['endpoint-removed'])
})

t.test('other routes, endpoints and WANs are told to those whom they concern', async (t) => {
  const { tested, next, told, far, log } = await start(t)
  far.steps = ['rule-added', 'endpoint-added']
  tested.schedule()
  await next()
  t.same(told.splice(0), ['endpoints added'])
  far.steps = ['route-added', 'endpoint-deleted']
  tested.schedule()
  await next()
  t.same(told.splice(0), ['endpoints deleted', 'routes'])
  far.wans = [dsl]
  tested.schedule()
  await next()
  t.same(told, ['wans-planned', 'WANs'])
  t.equal(log.lines.at(-1), 'info WANs changed')
})

t.test('the LAN is redirected with the next pass, which is said once, and not any more at the end', async (t) => {
  const { tested, far, next, log, stop, time, passes } = await start(t)
  let isRedirected = false
  void tested.redirect().then(() => {
    isRedirected = true
  })
  t.same(
    (await next()).map(({ redirect }) => redirect),
    [true],
  )
  t.equal(isRedirected, true)
  tested.schedule()
  await next()
  t.same(log.lines, ['info the LAN is redirected'])
  far.redirects = false
  tested.schedule()
  await next()
  far.redirects = true
  tested.schedule()
  await next()
  t.same(
    log.lines.splice(1),
    ['info the LAN is not redirected: its connections go as without bondsocks', 'info the LAN is redirected'],
    'without a WAN it is not',
  )
  await stop()
  await tested.stopRedirecting()
  t.equal(passes.at(-1)?.redirect, false)
  const late = tested.redirect()
  await time.settle()
  t.equal(await late, undefined, 'nobody waits after the end')
})
