/**
 * The hub of callbacks (`Uplinks`) in virtual time, with what it observes written down as facts: its WAN and HAG monitors ask a world that the test
 * makes, and every sign that they take is told to `onFact` at that moment. To prove that the new core decides the same.
 */

import type { Test } from 'tap'
import type { ProbeResult } from '../../src/engine/contract.js'
import type { Fact, HagSilent } from '../../src/gateway/facts.js'
import { troubleOf } from '../../src/gateway/hag-facts.js'
import type { Finding } from '../../src/gateway/hags/capabilities.js'
import type { HagEntryWithPassword } from '../../src/gateway/hags/directory.js'
import type { HagAnswer, HagProberOptions } from '../../src/gateway/hags/prober.js'
import type { Hag, PathAddress, WanPath } from '../../src/gateway/model.js'
import type { Selection, WanReport } from '../../src/gateway/roles/selection.js'
import type { Uplinks } from '../../src/gateway/steering/uplinks.js'
import type { FullSizeOptions } from '../../src/gateway/wans/full-size.js'
import type { Health, Sign } from '../../src/gateway/wans/health.js'
import type { WanProberOptions } from '../../src/gateway/wans/prober.js'
import type { RejoinOptions } from '../../src/gateway/wans/rejoin.js'
import type { ReconcileOptions } from '../../src/network/reconcile.js'
import type { NetworkOptions, NetworkPlan, WanAddresses } from '../../src/network/state.js'
import type { WatchEvents } from '../../src/network/watch.js'
import type { memoryLog } from './memory-log.js'
import { engineOf, type SimulatedWorld } from './steering-world.js'

/** A hub, while it is made and runs. */
interface Running extends OldHubOptions {
  /** Of each state of a WAN's health, the address. */
  addresses: WeakMap<Health, string>
  /** The newest of those that remember what a path does to MPTCP; its address follows. */
  mptcp: { bind: string }
  lookedAt: number
  /** The hub knows them by their identity. */
  hags: readonly Hag[]
  narrow: Set<string>
  /** Addresses of WANs. */
  present: ReadonlySet<string>
  changed: (() => void)[]
  remake: ((bind: string) => void)[]
  /** By HAG and address of ours. */
  found: Map<string, Finding>
}

let current: Running | undefined

function hub() {
  if (current === undefined) throw new Error('no hub runs')
  return current
}

/** The class `Uplinks` with monitors that write down what they take. */
export async function loadOldHub(t: Test): Promise<typeof Uplinks> {
  const health = await import('../../src/gateway/wans/health.js')
  const mptcpPath = await import('../../src/gateway/wans/mptcp-support.js')
  const admission = await import('../../src/gateway/hags/admission.js')
  const selection = await import('../../src/gateway/roles/roles.js')
  const reconcile = await import('../../src/network/reconcile.js')
  const counters = await import('../../src/gateway/interface-counters.js')
  const probe = await import('../../src/gateway/hags/capabilities.js')

  class MptcpSupport extends mptcpPath.MptcpSupport {
    readonly own = { bind: '' }
    constructor(metered: boolean) {
      super(metered)
      hub().mptcp = this.own
    }
    override recordProbe(seen: 'mptcp' | 'tcp' | 'blocked' | undefined, now: number): boolean {
      // Mends an accident: late news of an address that is gone is said, and taken for the next address.
      if (!hub().present.has(this.own.bind)) return false
      if (seen !== undefined) hub().onFact({ type: 'mptcp-seen', bind: this.own.bind, seen })
      return super.recordProbe(seen, now)
    }
  }

  class Admissions extends admission.Admissions {
    override asks(hag: Hag, bind: string): void {
      hub().onFact({ type: 'admission-asked', hag, bind })
      super.asks(hag, bind)
    }
    override answered(hag: Hag, path: PathAddress, isRefused: boolean): void {
      const finding = hub().found.get(`${hag.address} ${path.bind}`)
      const pipelines = finding?.state === 'works' ? finding.pipelines : undefined
      hub().onFact({ type: 'hag-request-answered', hag, path, isRefused, pipelines })
      super.answered(hag, path, isRefused)
    }
  }

  const examiner = {
    ...probe,
    async examine(_engine: unknown, { hag, bind }: { hag: Hag; bind: string }): Promise<Finding> {
      const { afterMs, find } = hub().world.examine(hag, bind)
      await new Promise((resolve) => setTimeout(resolve, afterMs))
      const finding = find()
      hub().found.set(`${hag.address} ${bind}`, finding)
      return finding
    },
  }
  const hagMonitor = (await t.mockImport('../../src/gateway/hags/prober.ts', {
    '../../src/gateway/hags/admission.ts': { ...admission, Admissions },
    '../../src/gateway/hags/capabilities.ts': examiner,
  })) as typeof import('../../src/gateway/hags/prober.js')
  class HagProber extends hagMonitor.HagProber {
    constructor(options: HagProberOptions) {
      const warn = (message: string, ...rest: []) => {
        const [, address] = /^HAG \[?([^\]\s]+)\]?:1080 is down: does nothing$/.exec(message) ?? []
        const hag = this.all.find((one) => one.address === address)
        if (hag !== undefined) hub().onFact({ type: 'hag-request-broken', hag, reason: 'does nothing' })
        options.log.warn(message, ...rest)
      }
      super({ ...options, log: { ...options.log, warn } })
    }
    override useHags(hags: readonly Hag[]): void {
      hub().hags = hags
      super.useHags(hags)
    }
    override recordProbe(hag: Hag, result: ProbeResult, askedAt: number, path: PathAddress, isPatient = false): void {
      const trouble = result.ok ? '' : troubleOf(hag, result)
      hub().onFact(factOf(hag, result, { askedAt, path, isPatient, trouble }))
      super.recordProbe(hag, result, askedAt, path, isPatient)
    }
    override recordTurnedAway(hag: Hag, path: PathAddress, how: 'stranger' | 'closes'): void {
      hub().onFact({ type: 'hag-turned-away', hag, path, how })
      super.recordTurnedAway(hag, path, how)
    }
    override async askAll(timeoutMs: number, hags?: readonly Hag[], hear?: (answer: HagAnswer) => void): Promise<HagAnswer[]> {
      const answers = await super.askAll(timeoutMs, hags, hear)
      const isStranger = ({ result }: HagAnswer) => !result.ok && result.failure.code === 'NOT_A_CLIENT'
      for (const hag of this.all) {
        const own = answers.filter((one) => one.hag === hag)
        const [first] = own
        if (first?.result.ok === false && own.every((one) => !one.result.ok && !isStranger(one)))
          hub().onFact({ type: 'hag-unreachable', hag, reason: troubleOf(hag, first.result) })
      }
      return answers
    }
  }

  class Reconciler extends reconcile.Reconciler {
    constructor(options: ReconcileOptions) {
      super({
        ...options,
        onWans: (wans) => {
          hub().onFact({ type: 'wans-planned', wans })
          options.onWans(wans)
        },
      })
    }
    override schedule(): void {
      hub().onReconcile()
      super.schedule()
    }
  }

  /** Its verdicts are the test's. */
  class FullSize {
    constructor(options: FullSizeOptions) {
      hub().changed.push(options.onChange)
    }
    judge(paths: readonly WanPath[]): WanPath[] {
      const isNarrow = ({ bind }: WanPath) => hub().narrow.has(bind)
      if (!paths.some((path) => path.usable && !isNarrow(path))) return [...paths]
      const judged = paths.map((path) => (isNarrow(path) ? { ...path, usable: false, lost: true } : path))
      return [...judged.filter((path) => !isNarrow(path)), ...judged.filter(isNarrow)]
    }
    checkNow(): void {}
    async run(): Promise<void> {}
  }

  class Rejoin {
    constructor({ remake }: RejoinOptions) {
      hub().remake.push(remake)
    }
    async look(): Promise<void> {}
  }

  const mocks = {
    '../../src/gateway/wans/health.ts': {
      ...health,
      nextHealth(before: Health, sign: Sign, now: number): Health {
        const { addresses, mptcp, onFact } = hub()
        const after = health.nextHealth(before, sign, now)
        const [, came] = sign.type === 'link' && sign.present ? (/^its address is (\S+)$/.exec(sign.reason) ?? []) : []
        if (came !== undefined) mptcp.bind = came
        const bind = came ?? addresses.get(before)
        if (bind !== undefined) addresses.set(after, bind)
        if (bind !== undefined && sign.type === 'answer') onFact({ type: 'wan-answered', bind, rttMs: sign.rttMs })
        if (bind !== undefined && sign.type === 'silence')
          onFact({ type: 'wan-silent', bind, reason: sign.reason, isSure: sign.sure === true })
        if (bind !== undefined && after.link) hub().onHealth(bind, after)
        return after
      },
    },
    '../../src/gateway/wans/mptcp-support.ts': { ...mptcpPath, MptcpSupport },
    '../../src/gateway/hags/prober.ts': { ...hagMonitor, HagProber },
    '../../src/gateway/roles/roles.ts': {
      ...selection,
      select(before: Selection, reports: readonly WanReport[], now: number): Selection {
        if (now !== hub().lookedAt) {
          hub().lookedAt = now
          const rates = new Map(reports.map(({ name, ...rates }) => [name, rates]))
          hub().onFact({ type: 'rates-sampled', rates, exhausted: new Set() })
        }
        return selection.select(before, reports, now)
      },
    },
    '../../src/network/reconcile.ts': { ...reconcile, Reconciler },
    '../../src/gateway/wans/full-size.ts': { FullSize },
    '../../src/gateway/wans/rejoin.ts': { Rejoin, rejoinLookMs: 20_000 },
    '../../src/gateway/interface-counters.ts': { ...counters, readCounters: () => hub().world.counters() },
    '../../src/gateway/wans/kernel-blackhole.ts': { watchBlackHole: async () => {} },
    '../../src/gateway/wans/keepalive.ts': { watchKeepalive: async () => {} },
    '../../src/gateway/wans/bundle-watch.ts': {
      BundleWatch: class {
        run = async () => {}
      },
    },
  }
  const monitor = (await t.mockImport(
    '../../src/gateway/wans/prober.ts',
    mocks,
  )) as typeof import('../../src/gateway/wans/prober.js')
  /**
   * Mends an accident, so that all else can be compared: a WAN's links of both families go one after the other, and the hub decides in between. A
   * WAN with both families that goes makes it prefer IPv6, and another HAG with it, for good.
   */
  class WanProber extends monitor.WanProber {
    readonly #quiet: { isOn: boolean }
    readonly #onChange: () => void
    constructor(options: WanProberOptions) {
      const quiet = { isOn: false }
      super({ ...options, onChange: () => quiet.isOn || options.onChange() })
      this.#quiet = quiet
      this.#onChange = options.onChange
    }
    override useWans(wans: readonly WanAddresses[], reason?: string): void {
      const addresses = wans.flatMap(({ address4, address6 }) => [address4 ?? [], address6 ?? []].flat())
      hub().present = new Set(addresses)
      for (const bind of hub().narrow) if (!addresses.includes(bind)) hub().narrow.delete(bind)
      this.#quiet.isOn = true
      super.useWans(wans, reason)
      this.#quiet.isOn = false
      this.#onChange()
    }
  }
  const all = { ...mocks, '../../src/gateway/wans/prober.ts': { ...monitor, WanProber } }
  return ((await t.mockImport('../../src/gateway/steering/uplinks.ts', all)) as { Uplinks: typeof Uplinks }).Uplinks
}

function factOf(
  hag: Hag,
  result: ProbeResult,
  { askedAt, path, isPatient, trouble }: { askedAt: number; path: PathAddress; isPatient: boolean; trouble: string },
): Fact {
  if (result.ok) return { type: 'hag-answered', hag, path }
  const { code } = result.failure
  if (code === 'ECONNREFUSED') return { type: 'hag-refused', hag }
  if (code === 'EADDRNOTAVAIL' || code === 'ENETUNREACH' || code === 'EINVAL') return { type: 'hag-not-asked', hag }
  return {
    type: 'hag-silent',
    hag,
    reason: trouble,
    askedAt,
    silentAt: performance.now(),
    hasConnected: result.stage !== 'connect',
    hasTimedOut: code === 'ETIMEDOUT',
    isPatient,
    isBehindFullWan: hub().isBehindFullWan(hag),
  } satisfies HagSilent
}

export interface OldHubOptions {
  Hub: typeof Uplinks
  wans: NetworkPlan['wans']
  entries: readonly HagEntryWithPassword[]
  config: ConstructorParameters<typeof Uplinks>[0]['config']
  world: SimulatedWorld
  log: ReturnType<typeof memoryLog>
  onFact(fact: Fact): void
  onReconcile(): void
  /** Whether a HAG's connections are acknowledged over a WAN that is full. */
  isBehindFullWan(hag: Hag): boolean
  /** The hub holds the WAN with this address to be so. */
  onHealth(bind: string, health: Health): void
  /** What the hub does, with its time. */
  onDeed(deed: string): void
  /** A pass: what the hub wants of the network, and what that finds. */
  onPass(options: NetworkOptions): NetworkPlan
}

/** Makes a hub and runs it until `stop`. */
export function startOldHub(options: OldHubOptions) {
  const { Hub, wans, entries, config, world, log } = options
  const running: Running = {
    ...options,
    addresses: new WeakMap(),
    mptcp: { bind: '' },
    lookedAt: performance.now(),
    hags: [],
    narrow: new Set(),
    present: new Set(),
    changed: [],
    remake: [],
    found: new Map(),
  }
  current = running
  const engine = engineOf(world, options.onDeed)
  const network = {
    apply: async (_config: unknown, wanted: NetworkOptions = {}) => options.onPass(wanted),
    async dropEndpoints(addresses: readonly string[]) {
      options.onDeed(`drop-endpoints ${addresses.join()}`)
    },
    async forgetBlackHole() {},
    async remove() {},
  }
  const uplinks = new Hub({ config, entries, engine, network, log })
  const stop = new AbortController()
  let events: WatchEvents | undefined
  const watch = async (given: WatchEvents) => {
    events = given
  }
  const failures: unknown[] = []
  const ended = uplinks.run({ wans, notes: [] }, watch, stop.signal, (error) => failures.push(error))
  return {
    uplinks,
    failures,
    events: () => events as WatchEvents,
    hags: () => running.hags,
    setNarrow(bind: string, isNarrow: boolean) {
      if (isNarrow) running.narrow.add(bind)
      else running.narrow.delete(bind)
      for (const changed of running.changed) changed()
    },
    remake: (bind: string) => running.remake[0]?.(bind),
    stop: () => stop.abort(),
    ended,
  }
}
