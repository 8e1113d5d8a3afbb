/** A home whose WANs and HAGs fare as the test says, for probers that run in virtual time. */
import type { DialSpec, Engine, Inspection, Probe, ProbeResult } from '../../src/engine/contract.js'
import type { Finding } from '../../src/gateway/hags/capabilities.js'
import type { Hag } from '../../src/gateway/model.js'

export const wanNames = ['dsl', 'lte', 'sat'] as const
export type Wan = (typeof wanNames)[number]
export type Family = 4 | 6
type Role = 'normal' | 'overflow' | 'backup'
export const hagAddresses = ['203.0.113.3', '203.0.113.4', '2001:db8::3']

/** How a WAN fares. */
export interface WanWorld {
  /** It has a link and addresses of its families, says whoever looks. */
  isThere: boolean
  families: readonly Family[]
  /** 1: its addresses are others than at the start. */
  moved: 0 | 1
  /** `refuses`: something on its path answers in the place of the HAGs. */
  answers: 'all' | 'none' | 'refuses'
  rttMs: number
  mptcp: 'mptcp' | 'tcp' | 'blocked'
  /** Bytes a second that it carries in each direction, whatever is asked over it. */
  rate: number
  /** Its subflows are acknowledged, and wait in a long queue. */
  isFull: boolean
  isNarrow: boolean
}

export interface HagWorld {
  /** `stranger`: it does not know the address of DSL. */
  answers: 'yes' | 'silent' | 'greets-not' | 'refuses' | 'stranger'
  /** What it does with a CONNECT; `refused`: only over LTE. */
  request: 'works' | 'refused' | 'broken' | 'unreachable'
}

/** What happens next. HAGs by their place among those of the scenario. */
export type Step =
  | { type: 'wait'; ms: number }
  | { type: 'wan'; wan: Wan; change: Partial<WanWorld> }
  | { type: 'link-gone'; wan: Wan }
  | { type: 'address-gone'; wan: Wan; family: Family }
  /** The kernel says that something changed. */
  | { type: 'look' }
  | { type: 'hag'; hag: number; change: Partial<HagWorld> }
  | { type: 'trouble'; hag: number; about: 'connection' | 'request' }
  | { type: 'request-refused'; hag: number; wan: Wan }
  | { type: 'direct'; wan: Wan; family: Family; times: number }
  | { type: 'fell-back'; wan: Wan }
  | { type: 'ipv6-unreachable'; hag: number }
  | { type: 'remake'; wan: Wan }

export interface Scenario {
  wans: readonly Wan[]
  /** Of each of the three, used or not. */
  roles: readonly Role[]
  metered: readonly boolean[]
  families: readonly (readonly Family[])[]
  hags: readonly { address: string; priority: number }[]
  /** Of each of the three HAGs at the start. */
  answers: readonly HagWorld['answers'][]
  onHagDown: 'direct' | 'reject'
  pipelines: boolean
  /** Connections. */
  relaying: number
  steps: readonly Step[]
}

const failed = (stage: 'connect' | 'greeting' | 'watch', code: string): Extract<ProbeResult, { ok: false }> => {
  const failure = { code, errno: 0, syscall: 'connect' }
  return { ok: false, stage, failure }
}
const blockOf = (name: Wan) => wanNames.indexOf(name) + 1

export class SimulatedWorld {
  readonly hags: readonly HagWorld[]
  /** What it was asked, and when. */
  readonly probes: string[] = []
  readonly #scenario: Scenario
  readonly #now: () => number
  readonly #wans: Map<Wan, WanWorld>
  readonly #carried = new Map<string, number>()
  #countedAt: number
  #jitterMs = 0

  constructor(scenario: Scenario, now: () => number) {
    this.#scenario = scenario
    this.#now = now
    this.#countedAt = now()
    this.hags = hagAddresses.map((_, index) => ({ answers: scenario.answers[index] ?? 'yes', request: 'works' }))
    this.#wans = new Map(
      wanNames.map((name, index): [Wan, WanWorld] => {
        const families = scenario.families[index] ?? [4]
        const link = { isThere: true, families, moved: 0, rttMs: 10 + 23 * index } as const
        return [name, { ...link, answers: 'all', mptcp: 'mptcp', rate: 0, isFull: false, isNarrow: false }]
      }),
    )
  }

  wan(name: Wan): WanWorld {
    return this.#wans.get(name) as WanWorld
  }

  change(name: Wan, change: Partial<WanWorld>): void {
    for (const [device, { received }] of this.counters()) this.#carried.set(device, received)
    this.#countedAt = this.#now()
    this.#wans.set(name, { ...this.wan(name), ...change })
  }

  changeHag(hag: Hag, change: Partial<HagWorld>): void {
    Object.assign(this.#hag(hag), change)
  }

  addressOf(name: Wan, family: Family): string {
    const host = 2 + this.wan(name).moved
    return family === 4 ? `10.${blockOf(name)}.0.${host}` : `2001:db8:${blockOf(name)}::${host}`
  }

  /** What a pass of the network set-up finds. */
  planned() {
    return this.#scenario.wans
      .filter((name) => this.wan(name).isThere)
      .map((name) => {
        const addresses = this.wan(name).families.map((family) => [`address${family}`, this.addressOf(name, family)])
        return { name, interface: name, ...Object.fromEntries(addresses) }
      })
  }

  probe({ remote, bind = '', protocol, connectTimeoutMs }: Probe) {
    this.probes.push(`${this.#now()} ${protocol} ${remote.address} from ${bind} within ${connectTimeoutMs}`)
    const name = wanOf(bind)
    const { answers, rttMs, mptcp, isThere } = this.wan(name)
    const hag = this.#hag(remote)
    const ms = this.#soon(rttMs)
    const after = (afterMs: number, result: ProbeResult) => ({ afterMs, result })
    const isCurrent = isThere && (this.addressOf(name, 4) === bind || this.addressOf(name, 6) === bind)
    if (!isCurrent) return after(this.#soon(1), failed('connect', 'EADDRNOTAVAIL'))
    if (answers === 'refuses') return after(ms, failed('connect', 'ECONNREFUSED'))
    const isMute = answers === 'none' || hag.answers === 'silent' || (protocol === 'mptcp' && mptcp === 'blocked')
    if (isMute || ms > connectTimeoutMs) return after(this.#soon(connectTimeoutMs), failed('connect', 'ETIMEDOUT'))
    if (hag.answers === 'refuses') return after(ms, failed('connect', 'ECONNREFUSED'))
    if (hag.answers === 'greets-not')
      return after(this.#soon(2 * connectTimeoutMs), { ...failed('greeting', 'ETIMEDOUT'), connectMs: rttMs })
    if (hag.answers === 'stranger' && name === 'dsl') return after(ms, failed('greeting', 'NOT_A_CLIENT'))
    const became = protocol === 'mptcp' && mptcp === 'mptcp' ? 'mptcp' : 'tcp'
    return after(ms, { ok: true, local: { address: bind, port: 1 }, protocol: became, connectMs: ms })
  }

  /** How a watched connection has just ended; undefined: it goes on. */
  watch({ remote, bind = '' }: Probe): ProbeResult | undefined {
    const name = wanOf(bind)
    const { answers } = this.#hag(remote)
    if (answers === 'refuses') return failed('watch', 'ECONNRESET')
    const isCurrent = this.addressOf(name, 4) === bind || this.addressOf(name, 6) === bind
    const { isThere, answers: passes } = this.wan(name)
    return isThere && isCurrent && passes === 'all' && answers !== 'silent' ? undefined : failed('watch', 'ETIMEDOUT')
  }

  /** Nobody gets through: it is only written down. */
  connect({ remote, bind }: DialSpec) {
    this.probes.push(`${this.#now()} connection to ${remote.address} from ${bind}`)
    return { ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } } as const
  }

  examine(hag: Hag, bind: string) {
    this.probes.push(`${this.#now()} CONNECT ${hag.address} from ${bind}`)
    const find = (): Finding => {
      const { answers, request } = this.#hag(hag)
      if (this.wan(wanOf(bind)).answers !== 'all' || answers !== 'yes') return { state: 'unreachable' }
      if (request === 'unreachable') return { state: 'unreachable' }
      if (request === 'broken') return { state: 'broken', trouble: 'does nothing' }
      const isRefused = request === 'refused' && wanOf(bind) === 'lte'
      return { state: 'works', isRefused, pipelines: isRefused ? undefined : this.#scenario.pipelines }
    }
    return { afterMs: this.#soon(find().state === 'unreachable' ? 2000 : 3 * this.wan(wanOf(bind)).rttMs), find }
  }

  inspect(): Inspection[] {
    const full = this.#scenario.wans.filter((name) => this.wan(name).isFull)
    const subflows = full.flatMap((name) =>
      ([4, 6] as const).flatMap((family) =>
        this.#scenario.hags.map(({ address }) => {
          const local = { address: this.addressOf(name, family), port: 1 }
          return { local, remote: { address, port: 1080 }, unackedPackets: 5, timeouts: 1, rttUs: 900_000, lastAckMs: 20 }
        }),
      ),
    )
    // Nobody's users are served over it.
    return [{ subflows, remote: { address: '192.0.2.1', port: 1 } } as unknown as Inspection]
  }

  counters() {
    return new Map(
      this.#scenario.wans.map((name) => {
        const since = (this.wan(name).rate * (this.#now() - this.#countedAt)) / 1000
        const bytes = Math.floor((this.#carried.get(name) ?? 0) + since)
        return [name as string, { received: bytes, sent: bytes }]
      }),
    )
  }

  relaying(): number {
    return this.#scenario.relaying
  }

  #hag({ address }: { address: string }): HagWorld {
    return this.hags[hagAddresses.indexOf(address)] as HagWorld
  }

  /** No two things happen at once. */
  #soon(ms: number): number {
    this.#jitterMs = (this.#jitterMs * 7 + 0.013) % 0.9
    return ms + this.#jitterMs
  }
}

const wanOf = (bind: string) => wanNames[Number(/^(?:10\.|2001:db8:)(\d)/.exec(bind)?.[1]) - 1] as Wan

/** An engine that asks it. `did`: hears what is done. */
export function engineOf(world: SimulatedWorld, did: (deed: string) => void): Engine {
  const engine = {
    async probe(probe: Probe) {
      const { afterMs, result } = world.probe(probe)
      await new Promise((resolve) => setTimeout(resolve, afterMs))
      for (let leftMs = result.ok ? (probe.watchMs ?? 0) : 0; leftMs > 0; leftMs -= 1000) {
        await new Promise((resolve) => setTimeout(resolve, 1000.0071))
        const ended = world.watch(probe)
        if (ended !== undefined) return ended
      }
      return result
    },
    inspect: async () => world.inspect(),
    inspectBusy: async () => [],
    connect: async (spec: DialSpec) => world.connect(spec),
    setKeepalive() {},
    keepPrepared: (probes: readonly Probe[]) => ({ counts: probes.map(() => 0) }),
    useDevices() {},
    abandon: (address: string) => did(`abandon ${address}`),
    async resetConnectionsTo({ address }: Hag) {
      did(`reset-connections ${address}`)
      return 0
    },
    async resetStranded() {
      did('look-for-stranded')
      return 0
    },
    watchConnectionsTo: ({ address }: Hag, isOn: boolean) => isOn && did(`wake-connections ${address}`),
    countOnly: async () => 0,
    stats: () => ({ relaying: world.relaying() }),
  }
  return engine as unknown as Engine
}
