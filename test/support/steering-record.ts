/** Plays a scenario to the gateway's hub in virtual time, and writes down what it asks, does and says. */
import { families } from '../../src/base/address.js'
import { parseGateway } from '../../src/config/load.js'
import { isUsable } from '../../src/gateway/model.js'
import { Hub } from '../../src/gateway/steering/hub.js'
import type { WatchEvents } from '../../src/network/watch.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from './memory-log.js'
import { engineOf, type Family, type Scenario, SimulatedWorld, type Step, type Wan } from './steering-world.js'
import { VirtualTime } from './virtual-time.js'

function configOf({ onHagDown, wans, roles, metered, hags }: Scenario): string {
  const text = [
    'lan: {interfaces: [br0]}',
    `on_hag_down: ${onHagDown}`,
    'wans:',
    ...wans.map((name, at) => `  - {name: ${name}, interface: ${name}, role: ${roles[at]}, metered: ${metered[at]}}`),
    'hags:',
    ...hags.map(({ address, priority }) => `  - {address: '${address}', priority: ${priority}}`),
  ]
  return `${text.join('\n')}\n`
}

export async function record(scenario: Scenario, each: (hub: Hub) => void = () => {}) {
  const time = new VirtualTime()
  const log = memoryLog()
  const deeds: { at: number; deed: string }[] = []
  const failures: unknown[] = []
  const world = new SimulatedWorld(scenario, () => time.now)
  const did = (deed: string) => deeds.push({ at: time.now, deed })
  const stop = new AbortController()
  let watched: WatchEvents | undefined
  time.start()
  try {
    const hub = new Hub({
      config: parseGateway(configOf(scenario), 'g.yaml'),
      entries: scenario.hags.map((one) => ({ ...one, port: 1080, weight: 1 })),
      engine: engineOf(world, did),
      network: {
        apply: async () => ({ steps: [], wans: world.planned(), redirects: true, notes: [] }),
        async dropEndpoints(addresses) {
          did(`drop-endpoints ${addresses.join()}`)
        },
        async forgetBlackHole() {},
        async remove() {},
      },
      emit: toLog(log),
      log,
      counters: () => world.counters(),
      async examine(_engine, { hag, bind }) {
        const { afterMs, find } = world.examine(hag, bind)
        await new Promise((resolve) => setTimeout(resolve, afterMs))
        return find()
      },
    })
    const watch = async (events: WatchEvents) => {
      watched = events
    }
    const ended = hub.run({ wans: world.planned(), notes: [] }, watch, stop.signal, (error) => failures.push(error))
    await time.settle()
    void hub.firstAnswer()
    const look = () => each(hub)
    await time.advance(1, look)
    for (const step of scenario.steps) {
      if (step.type === 'wait') await time.advance(step.ms + 0.0137, look)
      else take(step, hub, watched as WatchEvents, world, scenario)
      await time.settle()
      look()
    }
    await time.advance(100, look)
    const endedAt = time.now
    stop.abort()
    await time.advance(5000)
    await ended
    return { probes: world.probes, deeds: deeds.filter(({ at }) => at <= endedAt), lines: log.lines, failures, hub, endedAt }
  } finally {
    time.end()
  }
}

function take(
  step: Exclude<Step, { type: 'wait' }>,
  hub: Hub,
  watched: WatchEvents,
  world: SimulatedWorld,
  scenario: Scenario,
): void {
  const { steer } = hub
  const hagOf = (index: number) =>
    steer.target.hags.find(({ address }) => address === scenario.hags[index % scenario.hags.length]?.address)
  const pathOf = (wan: Wan, family: Family) => ({ wan, bind: world.addressOf(wan, family) })
  switch (step.type) {
    case 'wan':
      world.change(step.wan, step.change)
      for (const family of families) {
        const { bind } = pathOf(step.wan, family)
        const { isNarrow } = step.change
        if (isNarrow !== undefined && steer.target.links[family].some((link) => link.bind === bind))
          steer.report({ type: 'full-size-seen', bind, passes: !isNarrow })
      }
      break
    case 'link-gone':
      world.change(step.wan, { isThere: false })
      watched.onGone(step.wan, 'has no carrier')
      watched.onChange()
      break
    case 'address-gone':
      watched.onAddressGone(world.addressOf(step.wan, step.family))
      watched.onChange()
      break
    case 'look':
      watched.onChange()
      break
    case 'hag': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) world.changeHag(hag, step.change)
      break
    }
    case 'trouble': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) hub.report({ type: 'hag-trouble', hag, about: step.about })
      break
    }
    case 'request-refused': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) hub.report({ type: 'request-refused', hag, path: pathOf(step.wan, 4) })
      break
    }
    case 'direct':
      // Without a HAG connections go only while none answers, and only over WANs that there are.
      if (steer.target.links[step.family].some(isUsable) || !scenario.wans.includes(step.wan)) break
      for (let times = 0; times < step.times; times++)
        hub.report({ type: 'direct-answered', path: pathOf(step.wan, step.family) })
      break
    case 'fell-back':
      hub.report({ type: 'mptcp-fell-back', bind: world.addressOf(step.wan, 4) })
      break
    case 'ipv6-unreachable': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) hub.report({ type: 'ipv6-unreachable', hag, destination: { address: '2001:db8:9::7', port: 443 } })
      break
    }
    case 'remake':
      if (steer.state.remaking === undefined) steer.report({ type: 'endpoint-to-remake', bind: world.addressOf(step.wan, 4) })
  }
}
