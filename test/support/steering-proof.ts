/**
 * Plays a scenario to the hub of callbacks and to the core at once. The hub runs in virtual time; each fact that its monitors take is given to the
 * core at that moment, and after each moment both must want the same. Then steer and its probers play it alone: they must ask, do and say the same
 * at the same times.
 */
import { parseGateway } from '../../src/config/load.js'
import type { Fact } from '../../src/gateway/facts.js'
import { HagDirectory } from '../../src/gateway/hags/directory.js'
import type { Hag, Path } from '../../src/gateway/model.js'
import { isUsable } from '../../src/gateway/model.js'
import { isToConfirm } from '../../src/gateway/steering/admissions.js'
import type { Deed } from '../../src/gateway/steering/deeds.js'
import { hasEndpoint } from '../../src/gateway/steering/target.js'
import type { Uplinks } from '../../src/gateway/steering/uplinks.js'
import type { NetworkOptions } from '../../src/network/state.js'
import { memoryLog } from './memory-log.js'
import { startOldHub } from './old-hub.js'
import { Steering } from './steering.js'
import { configOf, isHidden, record } from './steering-record.js'
import { everyAddress, type Scenario, SimulatedWorld, type Step, type Wan } from './steering-world.js'
import { VirtualTime } from './virtual-time.js'

const round = (ms: number) => Math.round(ms * 1000) / 1000
const textOf = ({ hag, wan, bind, protocol, pipelined, patienceMs, leastRttMs }: Path) =>
  `${hag?.address ?? 'direct'} ${wan} ${bind} ${protocol} ${pipelined} ${patienceMs} ${leastRttMs}`
const portOf = 1080

/** Each line as often as it stands in the one more often than in the other. */
function without(lines: readonly string[], others: readonly string[]): string[] {
  const left = [...others]
  return lines.filter((line) => {
    const at = left.indexOf(line)
    if (at >= 0) left.splice(at, 1)
    return at < 0
  })
}

/** What differs between hub and core; no lines: nothing. `counts`: of facts and deeds, by their types. */
export async function play(Hub: typeof Uplinks, scenario: Scenario, counts = new Map<string, number>()): Promise<string[]> {
  const proof = new Proof(Hub, scenario, counts)
  proof.time.start()
  try {
    await proof.run()
  } finally {
    proof.time.end()
  }
  if (proof.faults.length > 0) return proof.faults
  // An accident: what the hub hears late over an address that is gone it takes for the next address of the WAN.
  if (scenario.steps.some((step) => step.type === 'wan' && step.change.moved !== undefined)) return []
  // And the same with the probers that report to the core, and without the hub.
  const alone = await record(scenario)
  const faults = differences('probes', proof.world.probes, alone.probes)
  const deeds = (all: readonly { at: number; deed: string }[]) =>
    all
      .filter(({ at }) => at <= alone.endedAt)
      .map(({ at, deed }) => `${round(at)} ${deed}`)
      .sort()
  faults.push(...differences('deeds', deeds(proof.deeds.hub), deeds(alone.deeds)))
  const lines = (all: readonly string[]) => all.filter((line) => !line.includes('full-size'))
  // Of one moment the hub says first what its monitor happened to find first.
  return [...faults, ...differences('log', lines(proof.log.lines).sort(), lines(alone.lines).sort())]
}

/** The first of two lists that differs from the other. */
function differences(what: string, hubs: readonly string[], ours: readonly string[]): string[] {
  const at = Array.from({ length: Math.max(hubs.length, ours.length) }, (_, at) => at).find((at) => hubs[at] !== ours[at])
  if (at === undefined) return []
  const near = (all: readonly string[]) => all.slice(Math.max(0, at - 3), at + 3).join('\n  ')
  return [`${what} ${at} of ${hubs.length}: hub\n  ${near(hubs)}\nprobers\n  ${near(ours)}`]
}

class Proof {
  readonly time = new VirtualTime()
  readonly faults: string[] = []
  readonly log = memoryLog()
  readonly #core: Steering
  readonly world: SimulatedWorld
  /** What each is to do or has done, and when. */
  readonly deeds: Record<'hub' | 'core', { at: number; deed: string }[]> = { hub: [], core: [] }
  /** When a pass of the network set-up was wanted, but for changes that the kernel told of. */
  readonly #passes: Record<'hub' | 'core', Set<number>> = { hub: new Set(), core: new Set() }
  #isTold = false
  /** What was compared last. */
  #seen: readonly unknown[] = []
  #wanted: NetworkOptions | undefined
  readonly #config
  readonly #entries

  constructor(
    private readonly Hub: typeof Uplinks,
    private readonly scenario: Scenario,
    private readonly counts: Map<string, number>,
  ) {
    const { onHagDown, hags } = scenario
    this.#config = parseGateway(configOf(scenario), 'g.yaml')
    this.#entries = hags.map((one) => ({ ...one, port: portOf, weight: 1 }))
    const configured = this.#config.wans.map(({ name, role, metered = false }) => ({ name, role, metered }))
    this.#core = new Steering({ wans: configured, onHagDown }, this.time.now)
    this.world = new SimulatedWorld(
      scenario,
      () => this.time.now,
      (hag) => isHidden(this.#core.state, hag),
    )
  }

  async run(): Promise<void> {
    const ordered = new HagDirectory({ entries: this.#entries, log: this.log }).hags
    const priorityOf = (hag: Hag) => `${this.#entries.find(({ address }) => address === hag.address)?.priority}`
    this.#take({ type: 'hags-changed', hags: ordered.map((hag) => ({ hag, priority: priorityOf(hag) })) })
    this.#take({ type: 'wans-planned', wans: this.world.planned() })
    this.deeds.core.length = 0
    this.#passes.core.clear()
    const hub = this.#start()
    await this.time.settle()
    void hub.uplinks.firstAnswer()
    const compare = () => this.#compare(hub.uplinks)
    await this.time.advance(1, compare)
    for (const step of this.scenario.steps) {
      if (this.faults.length > 0) break
      if (step.type === 'wait') await this.time.advance(step.ms + 0.0137, compare)
      else this.#step(step, hub)
      await this.time.settle()
      compare()
    }
    await this.time.advance(100, compare)
    const until = (all: { at: number; deed: string }[]) =>
      all.filter(({ at }) => at <= this.time.now).map(({ at, deed }) => `${round(at)} ${deed}`)
    this.#same('deeds', until(this.deeds.hub).sort(), until(this.deeds.core).sort())
    const times = (all: Set<number>) => [...all].filter((at) => at <= this.time.now).sort()
    this.#same('passes', times(this.#passes.hub), times(this.#passes.core))
    // The directory and the reconciler have lines of their own.
    const lines = this.log.lines.filter((line) => !/(HAGs|WANs) changed|cannot be looked up|full-size/.test(line))
    const own = this.#core.lines.filter((line) => !line.includes('full-size'))
    this.#same('log', without(lines, own), without(own, lines))
    for (const failure of hub.failures) this.faults.push(`failure ${(failure as Error).stack}`)
    hub.stop()
    await this.time.advance(5000)
    await hub.ended
  }

  #start() {
    return startOldHub({
      Hub: this.Hub,
      config: this.#config,
      entries: this.#entries,
      wans: this.world.planned(),
      world: this.world,
      log: this.log,
      onFact: (fact) => this.#take(fact),
      isBehindFullWan: ({ address }) => {
        const links = this.#core.target.links[address.includes(':') ? 6 : 4]
        return links.some(({ wan }) => this.world.wan(wan as Wan).isFull)
      },
      onHealth: (bind, health) => {
        const link = this.#core.state.links.find(({ address }) => address === bind)
        this.#same(`health of ${bind}`, health, link?.health)
      },
      onReconcile: () => {
        if (!this.#isTold) this.#passes.hub.add(round(this.time.now))
      },
      onDeed: (deed) => this.deeds.hub.push({ at: this.time.now, deed }),
      onPass: (options) => this.#pass(options),
    })
  }

  #pass(options: NetworkOptions) {
    this.#wanted = options
    const { best, hagFamilies, hags } = this.#core.target
    this.#same('best', options.best, JSON.parse(JSON.stringify(best)))
    this.#same('HAG families', options.hagFamilies, hagFamilies)
    const addresses = (all: NetworkOptions['hags'] = []) => all.map(({ address }) => address)
    this.#same('HAGs', addresses(options.hags), addresses(hags))
    const { remaking } = this.#core.state
    if (remaking !== undefined) queueMicrotask(() => this.#take({ type: 'endpoint-removed', bind: remaking }))
    return { steps: [], wans: this.world.planned(), notes: [] }
  }

  #step(step: Exclude<Step, { type: 'wait' }>, hub: ReturnType<typeof startOldHub>): void {
    const world = this.world
    const hagOf = (index: number): Hag | undefined => {
      const address = this.#entries[index % this.#entries.length]?.address
      return hub.hags().find((hag) => hag.address === address)
    }
    switch (step.type) {
      case 'wan':
        world.change(step.wan, step.change)
        if (step.change.isNarrow !== undefined) this.#judgeSize(step.wan, step.change.isNarrow, hub)
        break
      case 'link-gone':
        world.change(step.wan, { isThere: false })
        this.#take({ type: 'link-gone', interface: step.wan, what: 'has no carrier' })
        hub.events().onGone(step.wan, 'has no carrier')
        this.#tell(hub)
        break
      case 'address-gone': {
        const address = world.addressOf(step.wan, step.family)
        this.#take({ type: 'address-gone', address })
        hub.events().onAddressGone(address)
        this.#tell(hub)
        break
      }
      case 'look':
        this.#tell(hub)
        break
      case 'hag': {
        const hag = hagOf(step.hag)
        if (hag !== undefined) world.changeHag(hag, step.change)
        break
      }
      case 'trouble': {
        const hag = hagOf(step.hag)
        if (hag === undefined) break
        this.#take({ type: 'hag-trouble', hag, about: step.about })
        hub.uplinks.reportHagTrouble(hag, step.about)
        break
      }
      case 'request-refused': {
        const hag = hagOf(step.hag)
        const path = { wan: step.wan, bind: world.addressOf(step.wan, 4) }
        if (hag === undefined) break
        this.#take({ type: 'request-refused', hag, path })
        if (isToConfirm(this.#core.state.admissions, hag, path.bind))
          this.#take({ type: 'users-served', hag, path, isAnyServed: false })
        hub.uplinks.recordRefusedRequest(hag, path)
        break
      }
      case 'direct': {
        // An accident: the hub also counts answers from before the last WAN was lost.
        if (this.#core.target.links[step.family].some(isUsable)) break
        const path = { wan: step.wan, bind: world.addressOf(step.wan, step.family) }
        for (let times = 0; times < step.times; times++) {
          this.#take({ type: 'direct-answered', path })
          hub.uplinks.recordDirectAnswer(path as Path)
        }
        break
      }
      case 'fell-back':
        this.#take({ type: 'mptcp-fell-back', bind: world.addressOf(step.wan, 4) })
        hub.uplinks.mptcpFellBack(world.addressOf(step.wan, 4))
        break
      case 'remake':
        if (this.#core.state.remaking !== undefined) break
        this.#take({ type: 'endpoint-to-remake', bind: world.addressOf(step.wan, 4) })
        hub.remake(world.addressOf(step.wan, 4))
        break
    }
  }

  #judgeSize(wan: Wan, isNarrow: boolean, hub: ReturnType<typeof startOldHub>): void {
    for (const family of [4, 6] as const) {
      const bind = this.world.addressOf(wan, family)
      if (!this.#core.target.links[family].some((link) => link.bind === bind)) continue
      this.#take({ type: 'full-size-seen', bind, passes: !isNarrow })
      hub.setNarrow(bind, isNarrow)
    }
  }

  /** As the kernel tells of changes. */
  #tell(hub: ReturnType<typeof startOldHub>): void {
    this.#isTold = true
    hub.events().onChange()
    this.#isTold = false
  }

  #take(fact: Fact): void {
    this.#count(fact.type)
    this.#core.now = this.time.now
    for (const deed of this.#core.take(fact)) this.#do(deed)
  }

  #count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  /** In the hub's words. */
  #do(deed: Deed): void {
    const { now } = this.time
    this.#count(deed.type)
    const at = (ms: number, text: string) => this.deeds.core.push({ at: now + ms, deed: text })
    const look = (firstMs: number, looks: number) => {
      for (let look = 0; look < looks; look++) at(firstMs + look * 500, 'look-for-stranded')
    }
    if (deed.type === 'abandon') at(0, `abandon ${deed.address}`)
    if (deed.type === 'drop-endpoints') {
      at(deed.afterMs, `drop-endpoints ${deed.addresses.join()}`)
      if (deed.reconciles) this.#passes.core.add(round(now + deed.afterMs))
    }
    if (deed.type === 'look-for-stranded') look(deed.firstMs, deed.looks)
    if (deed.type === 'reset-connections') at(0, `reset-connections ${deed.hag.address}`)
    if (deed.type === 'wake-connections') {
      at(0, `wake-connections ${deed.hag.address}`)
      look(deed.firstMs, deed.looks)
    }
    if (deed.type === 'reconcile') this.#passes.core.add(round(now))
  }

  #compare({ pathTable }: Uplinks): void {
    // The hub makes them anew at every look.
    const seen = [this.#core.situation, pathTable.pathsTo('198.51.100.7')]
    if (seen.every((one, at) => one === this.#seen[at])) return
    this.#seen = seen
    const { paths } = this.#core.target
    const around = (family: 4 | 6) => (this.scenario.onHagDown === 'direct' ? paths.direct[family] : [])
    for (const [family, destination] of [
      [4, '198.51.100.7'],
      [6, '2001:db8:9::7'],
    ] as const) {
      this.#same(
        `paths ${family}`,
        pathTable.pathsTo(destination).map(textOf),
        [...paths.hagPaths, ...around(family)].map(textOf),
      )
      this.#same(`direct ${family}`, pathTable.directPathsTo(destination).map(textOf), paths.direct[family].map(textOf))
    }
    this.#same('preparable', pathTable.preparable.map(textOf), paths.preparable.map(textOf))
    const without = this.#wanted?.withoutEndpoint
    if (without === undefined) return
    const coresWithout = everyAddress.filter((one) => !hasEndpoint(this.#core.target, one))
    this.#same(
      'without endpoint',
      everyAddress.filter((one) => without.has(one)),
      coresWithout,
    )
  }

  #same(what: string, hubs: unknown, cores: unknown): void {
    const [one, other] = [JSON.stringify(hubs), JSON.stringify(cores)]
    if (one !== other && this.faults.length < 5) this.faults.push(`${round(this.time.now)} ${what}: hub ${one}, core ${other}`)
  }
}
