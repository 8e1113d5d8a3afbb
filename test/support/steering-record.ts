/** Plays a scenario to steer and its probers alone, and writes down what they ask and do. */
import { parseGateway } from '../../src/config/load.js'
import type { GatewayConfig } from '../../src/config/schema.js'
import type { Engine } from '../../src/engine/contract.js'
import type { Finding } from '../../src/gateway/hags/capabilities.js'
import type { HagEntryWithPassword } from '../../src/gateway/hags/directory.js'
import type { Carried } from '../../src/gateway/interface-counters.js'
import type { Hag } from '../../src/gateway/model.js'
import { isUsable } from '../../src/gateway/model.js'
import { linksByCost, type State } from '../../src/gateway/steering/state.js'
import type { NetworkOptions, NetworkPlan } from '../../src/network/state.js'
import { type MemoryLog, memoryLog } from './memory-log.js'
import { startNewHub } from './new-hub.js'
import { engineOf, type Scenario, SimulatedWorld, type Step, type Wan } from './steering-world.js'
import { VirtualTime } from './virtual-time.js'

export interface HubOptions {
  config: GatewayConfig
  entries: readonly HagEntryWithPassword[]
  engine: Engine
  network: { dropEndpoints(addresses: readonly string[]): Promise<void> }
  log: MemoryLog
  wans: NetworkPlan['wans']
  counters(): Map<string, Carried>
  examine(engine: unknown, target: { hag: Hag; bind: string }): Promise<Finding>
  onPass(options: NetworkOptions): NetworkPlan
}

export function configOf({ onHagDown, wans, roles, metered, hags }: Scenario): string {
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

/** Whether what a CONNECT finds of a HAG may come too late for the hub's log. */
export const isHidden = (state: State, { address }: Hag): boolean =>
  state.hags.some(({ hag, health }) => hag.address === address && (health.state === 'down' || linksByCost(state, hag).length > 1))

export async function record(scenario: Scenario) {
  const time = new VirtualTime()
  const log = memoryLog()
  const deeds: { at: number; deed: string }[] = []
  const world = new SimulatedWorld(
    scenario,
    () => time.now,
    (hag): boolean => isHidden(hub.steer.state, hag),
  )
  const did = (deed: string) => deeds.push({ at: time.now, deed })
  time.start()
  const hub = startNewHub({
    config: parseGateway(configOf(scenario), 'g.yaml'),
    entries: scenario.hags.map((one) => ({ ...one, port: 1080, weight: 1 })),
    engine: engineOf(world, did),
    network: {
      async dropEndpoints(addresses) {
        did(`drop-endpoints ${addresses.join()}`)
      },
    },
    log,
    wans: world.planned(),
    counters: () => world.counters(),
    async examine(_engine, { hag, bind }) {
      const { afterMs, find } = world.examine(hag, bind)
      await new Promise((resolve) => setTimeout(resolve, afterMs))
      return find()
    },
    onPass: () => ({ steps: [], wans: world.planned(), notes: [] }),
  })
  try {
    await time.settle()
    void hub.firstAnswer()
    await time.advance(1)
    for (const step of scenario.steps) {
      if (step.type === 'wait') await time.advance(step.ms + 0.0137)
      else take(step, hub, world, scenario)
      await time.settle()
    }
    await time.advance(100)
    const endedAt = time.now
    hub.stop()
    await time.advance(5000)
    await hub.ended
    return { probes: world.probes, deeds, lines: log.lines, endedAt }
  } finally {
    time.end()
  }
}

function take(
  step: Exclude<Step, { type: 'wait' }>,
  hub: ReturnType<typeof startNewHub>,
  world: SimulatedWorld,
  scenario: Scenario,
): void {
  const hagOf = (index: number) =>
    hub.hags().find(({ address }) => address === scenario.hags[index % scenario.hags.length]?.address)
  const pathOf = (wan: Wan, family: 4 | 6) => ({ wan, bind: world.addressOf(wan, family) })
  switch (step.type) {
    case 'wan':
      world.change(step.wan, step.change)
      for (const family of [4, 6] as const) {
        const { bind } = pathOf(step.wan, family)
        const { isNarrow } = step.change
        if (isNarrow !== undefined && hub.links(family).some((link) => link.bind === bind)) hub.setNarrow(bind, isNarrow)
      }
      break
    case 'link-gone':
      world.change(step.wan, { isThere: false })
      hub.onGone(step.wan, 'has no carrier')
      hub.onChange()
      break
    case 'address-gone':
      hub.onAddressGone(world.addressOf(step.wan, step.family))
      hub.onChange()
      break
    case 'look':
      hub.onChange()
      break
    case 'hag': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) world.changeHag(hag, step.change)
      break
    }
    case 'trouble': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) hub.suspect(hag, step.about)
      break
    }
    case 'request-refused': {
      const hag = hagOf(step.hag)
      if (hag !== undefined) void hub.requestRefused(hag, pathOf(step.wan, 4))
      break
    }
    case 'direct':
      if (hub.links(step.family).some(isUsable)) break
      for (let times = 0; times < step.times; times++) hub.wentAround(pathOf(step.wan, step.family))
      break
    case 'fell-back':
      hub.doubtMptcp(world.addressOf(step.wan, 4))
      break
    case 'remake':
      if (hub.steer.state.remaking === undefined) hub.remake(world.addressOf(step.wan, 4))
  }
}
