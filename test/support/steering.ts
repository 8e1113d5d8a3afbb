/** The core of facts, state and target with a clock that the test moves. */

import type { Fact } from '../../src/gateway/facts.js'
import type { Hag, Path, Paths } from '../../src/gateway/model.js'
import { type Deed, deeds, type Situation } from '../../src/gateway/steering/deeds.js'
import { events } from '../../src/gateway/steering/events.js'
import { firstState, reduce, type SteeringConfig } from '../../src/gateway/steering/state.js'
import { hasEndpoint, target } from '../../src/gateway/steering/target.js'
import { lineOf } from '../../src/telemetry/events.js'

export class Steering {
  situation: Situation
  /** What the log says. */
  readonly lines: string[] = []

  constructor(
    config: SteeringConfig,
    public now = 100_000,
  ) {
    const state = firstState(config, now)
    this.situation = { state, target: target(state, undefined) }
  }

  /** What is to be done because of a fact. */
  take(fact: Fact): Deed[] {
    const state = reduce(this.situation.state, fact, this.now)
    const after = { state, target: target(state, this.situation.target) }
    const todo = deeds(this.situation, after)
    const lines = events(this.state, state, fact).map(lineOf)
    this.lines.push(...lines.map(({ level, text }) => `${level} ${text}`))
    this.situation = after
    return todo
  }

  get state() {
    return this.situation.state
  }

  get target() {
    return this.situation.target
  }
}

export const first: Hag = { address: '203.0.113.3', port: 1080 }
export const second: Hag = { address: '203.0.113.4', port: 1080 }
export const six: Hag = { address: '2001:db8::3', port: 1080 }
export const dsl = { name: 'dsl', interface: 'dsl0', address4: '10.1.0.2' }
export const lte = { name: 'lte', interface: 'wwan0', address4: '10.2.0.2' }
export const sat = { name: 'sat', interface: 'sat0', address4: '10.3.0.2' }
export const overDsl = { wan: 'dsl', bind: dsl.address4 }
export const overLte = { wan: 'lte', bind: lte.address4 }

interface Home {
  wans?: readonly { name: string; interface: string; address4?: string; address6?: string }[]
  hags?: readonly Hag[]
  roles?: Readonly<Record<string, 'normal' | 'overflow' | 'backup'>>
  onHagDown?: 'direct' | 'reject'
  metered?: readonly string[]
}

/** A gateway at home, at a time when it has run for a while and all WANs and HAGs have answered; DSL takes 10 ms, each next WAN 20 ms more. */
export function home({ wans = [dsl, lte], hags = [first, second], roles = {}, onHagDown = 'direct', metered = [] }: Home = {}) {
  const config = {
    onHagDown,
    wans: wans.map(({ name, interface: device }) => {
      const role = roles[name] ?? ('normal' as const)
      return { name, interface: device, metered: metered.includes(name), role }
    }),
  }
  const steering = new Steering(config)
  steering.take({ type: 'wans-planned', wans })
  steering.take({ type: 'hags-changed', hags: hags.map((hag, index) => ({ hag, priority: `${index}` })) })
  const bind = wans[0]?.address4 ?? ''
  for (const hag of hags) steering.take({ type: 'hag-answered', hag, path: { wan: 'dsl', bind } })
  for (const [index, { address4, address6 }] of wans.entries())
    for (const bind of [address4, address6])
      if (bind !== undefined) steering.take({ type: 'wan-answered', bind, rttMs: 10 + 20 * index })
  steering.now += 10_000
  return steering
}

interface HomeWithTroubles extends Home {
  /** HAGs that are down. */
  down?: readonly Hag[]
  /** HAGs that take all that is sent to them in one go. */
  pipelining?: readonly Hag[]
  /** Addresses over which no HAG answers. */
  silentOver?: readonly string[]
  /** Addresses on whose paths MPTCP vanishes. */
  blockedOver?: readonly string[]
}

/** The paths of such a home. */
export function pathsOf({ down = [], pipelining = [], silentOver = [], blockedOver = [], ...rest }: HomeWithTroubles): Paths {
  const steering = home(rest)
  for (const hag of pipelining)
    steering.take({ type: 'hag-request-answered', hag, path: overDsl, isRefused: false, pipelines: true })
  for (const hag of [...down, ...down]) steering.take({ type: 'hag-refused', hag })
  for (const bind of blockedOver) steering.take({ type: 'mptcp-seen', bind, seen: 'blocked' })
  for (const bind of silentOver) silences(steering, bind)
  return steering.target.paths
}

/** As a prober finds them, three in a row. */
export function silences(steering: Steering, bind: string): Deed[] {
  const all: Deed[] = []
  for (let times = 0; times < 3; times++) {
    steering.now += 300
    all.push(...steering.take({ type: 'wan-silent', bind, reason: 'no HAG answers over it', isSure: false }))
  }
  return all
}

/** A HAG that does not answer a probe put 300 ms ago. */
export function silent(steering: Steering, hag: Hag, more: Partial<Extract<Fact, { type: 'hag-silent' }>> = {}): Deed[] {
  steering.now += 301
  return steering.take({
    type: 'hag-silent',
    hag,
    reason: 'no answer',
    askedAt: steering.now - 300,
    silentAt: steering.now,
    hasConnected: false,
    hasTimedOut: true,
    isPatient: false,
    isBehindFullWan: false,
    ...more,
  })
}

export const pathTexts = (paths: readonly Path[]) => paths.map(({ hag, wan }) => `${hag?.address ?? 'direct'} ${wan}`)

export const deedTexts = (all: readonly Deed[]): string[] => all.map(deedText)

function deedText(deed: Deed): string {
  switch (deed.type) {
    case 'use-wans':
      return `use WANs ${deed.wans.map(({ name }) => name).join()}`
    case 'use-paths':
      return 'use paths'
    case 'abandon':
      return `abandon ${deed.address}`
    case 'drop-endpoints':
      return `after ${deed.afterMs} ms drop endpoints ${deed.addresses.join()}${deed.reconciles ? ', then reconcile' : ''}`
    case 'look-for-stranded':
      return `after ${deed.firstMs} ms look ${deed.looks} times for stranded connections`
    case 'reset-connections':
      return `reset connections over ${deed.hag.address}`
    case 'wake-connections':
      return `wake connections over ${deed.hag.address}`
    case 'reconcile':
      return `reconcile${deed.isForced ? ', and tell the WANs again' : ''}`
  }
}

/** Of these addresses, those that have an endpoint. */
export const endpointsOf = (steering: Steering, addresses: readonly string[]) =>
  addresses.filter((address) => hasEndpoint(steering.target, address))
