/** What the choice of WANs remembers, and its constants. Without clock or I/O. */

import type { UseReason } from '../../telemetry/events/use.js'

export type Role = 'normal' | 'overflow' | 'backup'

export interface WanReport {
  name: string
  role: Role
  /** Its health is up or degraded. */
  isUsable: boolean
  rttMs?: number | undefined
  /** Bytes per second since the last sample. */
  receivedPerSecond: number
  sentPerSecond: number
  /** Its monthly volume is used up, so that it is a backup. */
  volumeExhausted: boolean
}

export const directions = ['receivedPerSecond', 'sentPerSecond'] as const
export type Direction = (typeof directions)[number]
type Rates = Readonly<Record<Direction, number>>

export interface Memory {
  /** It was in use and worked. */
  readonly hasServed: boolean
  /** The last rates, newest last. */
  readonly recent: readonly Rates[]
  /** The highest rate that lasted for some seconds, bytes per second; falls slowly while the WAN carries something. */
  readonly ceiling: Rates
  /** Until then the drag guard keeps it out, or does not suspect it again. */
  readonly outUntil: number
  readonly clearUntil: number
  /** How often in a row it was found to drag. */
  readonly drags: number
  /** Until then it does not join; after that only if joining may have another outcome than before. */
  readonly cooldownUntil: number
  readonly failures: number
}

export interface Trial {
  readonly kind: 'join' | 'drag'
  readonly wan: string
  readonly direction: Direction
  /** The sum before it, bytes per second. */
  readonly before: number
  /** The sum to reach if the change was right. */
  readonly wanted: number
  readonly endsAt: number
}

export interface Selection {
  readonly inUse: ReadonlySet<string>
  /** For each WAN whose use has just changed. */
  readonly reasons: ReadonlyMap<string, UseReason>
  /** Overflow WANs that have joined. */
  readonly joined: ReadonlySet<string>
  readonly memories: ReadonlyMap<string, Memory>
  readonly trial: Trial | undefined
  readonly sampledAt: number
}

export interface Working {
  readonly before: Selection
  readonly wans: readonly WanReport[]
  readonly now: number
  readonly memories: Map<string, Memory>
  readonly joined: Set<string>
  readonly reasons: Map<string, UseReason>
  trial: Trial | undefined
}

const none: Rates = { receivedPerSecond: 0, sentPerSecond: 0 }
export const fresh: Memory = {
  hasServed: false,
  recent: [],
  ceiling: none,
  outUntil: 0,
  clearUntil: 0,
  drags: 0,
  cooldownUntil: 0,
  failures: 0,
}

/** Slow start of the joining WAN and the sum's settling take about three seconds, the measurement three more. */
export const trialMs = 6000
export const measuredSamples = 3
export const keptSamples = 5
/** A lower rate, bytes per second, does not fill any line. */
export const busyRate = 20_000
const shortestOutMs = 60_000
const longestOutMs = 3_600_000
/** A ceiling halves in a quarter of an hour in which the WAN carries something. */
const keepPerSample = 0.5 ** (1 / 900)

/** How long a WAN that has failed so often in a row stays out. */
export const outMs = (times: number) => Math.min(shortestOutMs * 2 ** times, longestOutMs)

export const roleOf = ({ role, volumeExhausted }: Pick<WanReport, 'role' | 'volumeExhausted'>): Role =>
  volumeExhausted ? 'backup' : role

export function recordRates(memory: Memory, { receivedPerSecond, sentPerSecond }: WanReport): Memory {
  const recent = [...memory.recent, { receivedPerSecond, sentPerSecond }].slice(-keptSamples)
  const held = recent.slice(-measuredSamples)
  const ceiling = { ...memory.ceiling }
  for (const direction of directions) {
    const lowest = held.length < measuredSamples ? 0 : Math.min(...held.map((one) => one[direction]))
    const rate = recent.at(-1)?.[direction] ?? 0
    ceiling[direction] = Math.max(lowest, ceiling[direction] * (rate < busyRate ? 1 : keepPerSample))
  }
  return { ...memory, recent, ceiling }
}

const mean = (values: readonly number[]) => (values.length === 0 ? 0 : values.reduce((sum, one) => sum + one, 0) / values.length)

export function rateOf({ memories }: Working, name: string, direction: Direction, samples = measuredSamples): number {
  return mean((memories.get(name)?.recent ?? []).slice(-samples).map((one) => one[direction]))
}

/** Over all WANs, because a WAN that is just going out of use still carries bytes. */
export const sumOf = (state: Working, direction: Direction, samples?: number) =>
  state.wans.reduce((sum, { name }) => sum + rateOf(state, name, direction, samples), 0)

export const ceilingOf = ({ memories }: Working, names: Iterable<string>, direction: Direction) =>
  [...names].reduce((sum, name) => sum + (memories.get(name)?.ceiling[direction] ?? 0), 0)

export function remember({ memories }: Working, name: string, change: Partial<Memory>): void {
  memories.set(name, { ...(memories.get(name) ?? fresh), ...change })
}
