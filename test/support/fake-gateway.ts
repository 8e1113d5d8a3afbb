/** A gateway whose engine, network and clock are the test's. */
import t from 'tap'
import type { BondsocksError } from '../../src/base/errors.js'
import { aborted } from '../../src/base/pause.js'
import { parseGateway } from '../../src/config/load.js'
import type { Commands } from '../../src/control/open.js'
import { runGateway } from '../../src/gateway/gateway.js'
import type { NetworkOptions, NetworkPlan } from '../../src/network/state.js'
import type { WatchEvents } from '../../src/network/watch.js'
import { EventFeed } from '../../src/telemetry/feed.js'
import { fakeNative } from './fake-native.js'
import type { FarSide } from './far-side.js'
import { memoryLog } from './memory-log.js'
import { virtualTime } from './virtual-time.js'

const time = virtualTime(t)

const twoWans = `  - {name: dsl, interface: dsl}
  - {name: lte, interface: lte}`
const text = (wans = twoWans) => `lan: {interfaces: [br0]}
wans:
${wans}
hags:
  - {address: 203.0.113.3}
`
export const wans = [
  { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' },
  { name: 'lte', interface: 'lte', address4: '10.2.0.2' },
]

export function start(
  far: FarSide = {},
  options: { more?: string; wans?: string; apply?: () => Promise<NetworkPlan>; mptcp?: string; watch?: () => Promise<void> } = {},
) {
  const { native, engines } = fakeNative(far, options.mptcp)
  const stop = new AbortController()
  const hurry = new AbortController()
  /** What happened on the machine, in order. */
  const deeds: string[] = []
  /** The WANs that each pass was to leave without an endpoint. */
  const withheld: string[] = []
  /** The WAN that each pass was to lead what is not redirected over. */
  const best: string[] = []
  const watched: WatchEvents[] = []
  const log = memoryLog()
  const network = {
    async apply(_config: unknown, { redirect = true, withoutEndpoint, best: chosen }: NetworkOptions = {}): Promise<NetworkPlan> {
      deeds.push(redirect ? 'apply' : 'apply without redirect')
      best.push(chosen?.[4] ?? '')
      withheld.push(wans.flatMap(({ name, address4 }) => (withoutEndpoint?.has(address4) ? [name] : [])).join())
      return options.apply?.() ?? { steps: [], wans, redirects: redirect, notes: ['a note'] }
    },
    async dropEndpoints() {},
    async forgetBlackHole() {},
    async remove() {
      deeds.push('remove')
    },
  }
  const guard = async () => {
    deeds.push('guard')
    return {
      async dismiss() {
        deeds.push('dismiss')
      },
    }
  }
  const watch = (events: WatchEvents, signal: AbortSignal) => {
    watched.push(events)
    return options.watch?.() ?? aborted(signal)
  }
  const fail = (error: unknown) => {
    deeds.push(`fail ${(error as Error).message}`)
    stop.abort()
  }
  let commands: Commands = {}
  const openControl = async (_options: unknown, given: Commands) => {
    commands = given
    return {
      close() {
        commands = {}
      },
    }
  }
  const signals = { stop: stop.signal, hurry: hurry.signal, fail, dispose: () => deeds.push('dispose') }
  const config = parseGateway(`${text(options.wans)}${options.more ?? ''}`, 'g.yaml')
  const ended = runGateway(config, { native, network, guard, openControl, events: new EventFeed(log), log, signals, watch }).then(
    () => undefined,
    (error: BondsocksError) => error,
  )
  return { engines, stop, hurry, deeds, withheld, best, watched, log, ended, status: () => commands.status?.() }
}

export const until = (isSo: () => boolean) => time.until(isSo, 30_000)

/** What it ends with. */
export async function outcome<Value>(ended: Promise<Value>): Promise<Value> {
  let isOver = false
  void ended.finally(() => {
    isOver = true
  })
  await until(() => isOver)
  return ended
}

export const unreachable = {
  ok: false,
  stage: 'connect',
  failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' },
} as const
export const silence = { code: 'ETIMEDOUT', errno: 110, syscall: 'recv' }
export const refused = { ok: false, stage: 'authentication', failure: { code: 'EACCES', errno: 13, syscall: 'recv' } } as const
