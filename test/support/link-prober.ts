/** The prober of two WANs and the state it reports to, on a clock that the test moves. */
import type { Test } from 'tap'
import type { Inspection, Probe, ProbeResult } from '../../src/engine/contract.js'
import { isUsable } from '../../src/gateway/model.js'
import { Pace } from '../../src/gateway/pace.js'
import * as schedule from '../../src/gateway/steering/schedule.js'
import { wanLinks } from '../../src/gateway/steering/state.js'
import { Steer } from '../../src/gateway/steering/steer.js'
import { LinkProber } from '../../src/gateway/wans/link-prober.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from './memory-log.js'
import { answer, probingEngine } from './probing-engine.js'
import { virtualTime } from './virtual-time.js'

export const dsl = { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' }
export const lte = { name: 'lte', interface: 'lte', address4: '10.2.0.2' }
export const hag = { address: '203.0.113.3', port: 1080 }
export const other = { address: '203.0.113.4', port: 1080 }
export const hag6 = { address: '2001:db8::3', port: 1080 }

/** The rest of the world; what is left out answers, carries nothing and has no connections. */
export interface World {
  probe?: (probe: Probe) => ProbeResult
  inspect?: () => Inspection[]
  /** Bytes of each device in all; none: the counters cannot be read. */
  received?: () => Record<string, number>
  sent?: () => number
  hags?: readonly (typeof hag)[]
  metered?: readonly string[]
  /** Connections; one where left out. */
  relaying?: number
  wans?: readonly { name: string; interface: string; address4?: string; address6?: string }[]
}

export async function start(t: Test, world: World) {
  const { hags = [hag], metered = [], wans = [dsl, lte] } = world
  const time = virtualTime(t)
  const log = memoryLog()
  /** Whether the HAG answered, as was reported of it. */
  const reported: boolean[] = []
  const { engine, asked } = probingEngine(
    {
      probe: (probe) => world.probe?.(probe) ?? answer(),
      answerMs: 2,
      silenceMs: ({ connectTimeoutMs }) => connectTimeoutMs,
      inspect: world.inspect,
      relaying: world.relaying ?? 1,
    },
    { connect: async () => ({ ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }) },
  )
  const steer = new Steer({
    config: {
      wans: wans.map((wan) => ({ ...wan, role: 'normal', metered: metered.includes(wan.name) })),
      onHagDown: 'direct',
    },
    engine,
    emit: toLog(log),
    log,
    dropEndpoints: async () => {},
    reconcile() {},
    usePaths() {},
    onChange(before, after) {
      for (const [index, { address }] of after.links.entries())
        if (address !== before.links[index]?.address) prober.probeNow(index, true)
    },
  })
  const pace = new Pace(engine)
  const prober = new LinkProber({
    engine,
    pace,
    log,
    links: () => steer.state.links,
    hags: (family) => hags.filter(({ address }) => address.includes(':') === (family === 6)),
    nextProbe: (link) => schedule.nextRound(steer.state, link),
    asksForMptcp: (link) => schedule.asksForMptcp(link, performance.now()),
    report: (fact) => steer.report(fact),
    reportHag: ({ result }) => reported.push(result.ok),
    counters: () =>
      new Map(
        Object.entries(world.received?.() ?? { lo: 0 }).map(([name, received]) => [
          name,
          { received, sent: world.sent?.() ?? 0 },
        ]),
      ),
  })
  const use = (planned: readonly { name: string; interface: string; address4?: string; address6?: string }[]) =>
    steer.report({ type: 'wans-planned', wans: planned })
  steer.report({ type: 'hags-changed', hags: hags.map((hag) => ({ hag, priority: '0' })) })
  use(wans)
  const end = new AbortController()
  const running = prober.run(end.signal)
  t.teardown(async () => {
    end.abort()
    await time.advance(5000)
    await running
  })
  const links = (family: 4 | 6 = 4) => wanLinks(steer.state, family)
  const isUp = (name: string) =>
    ([4, 6] as const).some((family) => links(family).some((one) => one.wan === name && isUsable(one)))
  const until = (isSo: () => boolean) => time.until(isSo)
  if (world.probe === undefined) await until(() => wans.every(({ name }) => isUp(name)))
  return { time, steer, prober, log, asked, reported, links, isUp, use, until, bothUp: () => isUp('dsl') && isUp('lte') }
}
