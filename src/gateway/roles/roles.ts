/**
 * Which WANs are used: roles, overflow and the drag guard. A state machine without clock or I/O. Nothing about the lines is configured:
 * what a WAN can carry is learned, and whether a change helped is measured by making it.
 */

export type Role = 'normal' | 'overflow' | 'backup'

export interface WanReport {
  name: string
  role: Role
  /** Its health is up or degraded. */
  usable: boolean
  rttMs?: number | undefined
  /** Bytes per second since the last sample. */
  receivedPerSecond: number
  sentPerSecond: number
  /** Its monthly volume is used up, so that it is a backup. */
  volumeExhausted: boolean
}

const directions = ['receivedPerSecond', 'sentPerSecond'] as const
type Direction = (typeof directions)[number]
type Rates = Readonly<Record<Direction, number>>

interface Memory {
  /** It was in use and worked. */
  readonly hasServed: boolean
  /** The last rates, newest last. */
  readonly recent: readonly Rates[]
  /** The highest rate that held for some seconds, bytes per second; slowly forgotten while it carries something. */
  readonly ceiling: Rates
  /** Until then the drag guard keeps it out, or has cleared it. */
  readonly outUntil: number
  readonly clearUntil: number
  /** How often in a row it was found to drag. */
  readonly drags: number
  /** Until then it does not join, and after that only where joining may have another outcome than the last times. */
  readonly cooldownUntil: number
  readonly failures: number
}

interface Trial {
  readonly kind: 'join' | 'drag'
  readonly wan: string
  readonly direction: Direction
  /** The sum before it, bytes per second. */
  readonly before: number
  /** The sum that shows that the change was right. */
  readonly wanted: number
  readonly endsAt: number
}

export interface Selection {
  readonly inUse: ReadonlySet<string>
  /** A line for people for each WAN whose use has just changed. */
  readonly reasons: ReadonlyMap<string, string>
  /** Overflow WANs that have joined. */
  readonly joined: ReadonlySet<string>
  readonly memories: ReadonlyMap<string, Memory>
  readonly trial: Trial | undefined
  readonly sampledAt: number
}

const none: Rates = { receivedPerSecond: 0, sentPerSecond: 0 }
const fresh: Memory = {
  hasServed: false,
  recent: [],
  ceiling: none,
  outUntil: 0,
  clearUntil: 0,
  drags: 0,
  cooldownUntil: 0,
  failures: 0,
}
/** Before anything is known; `used` is what has endpoints now. */
export const initial = (used: Iterable<string>): Selection => ({
  inUse: new Set(used),
  reasons: new Map(),
  joined: new Set(),
  memories: new Map(),
  trial: undefined,
  sampledAt: Number.NEGATIVE_INFINITY,
})

/** A call between two samples, after a change of health, brings no new rates. */
const sampleMs = 900
/** Slow start of the joining WAN and the sum's settling take about three seconds, the measurement three more. */
const trialMs = 6000
const measuredSamples = 3
const keptSamples = 5
/** Less than this, bytes per second, fills no line. */
const busy = 20_000
const fullShare = 0.85
const fitShare = 0.7
/** A joining WAN that adds less has not been needed. */
const joinGain = 1.15
/** Of a bundle with a crawling WAN, measured in the lab: the sum falls from 20 Mbit/s to 2 to 8 in the mean over five seconds. */
const dragShare = 0.75
/** Bytes a second that the others have carried at least (2 Mbit/s): below it a trial would compare trickles. */
const dragMinRate = 250_000
const crawlShare = 0.1
/** What is quicker than this cannot hold the others up, however much quicker they are. */
const crawlMinRttMs = 100
const crawlRtts = 3
const dragGain = 1.3
const cooldownMs = 15_000
const clearMs = 180_000
const shortestOutMs = 60_000
const longestOutMs = 3_600_000
/** A ceiling is half forgotten after a quarter of an hour in which the WAN carried something. */
const keepPerSample = 0.5 ** (1 / 900)

/** To be called once a second and at every change of health; `now`: milliseconds of a clock that never jumps. */
export function select(before: Selection, wans: readonly WanReport[], now: number): Selection {
  const isSample = now - before.sampledAt >= sampleMs
  const known = new Map(wans.map((wan) => [wan.name, before.memories.get(wan.name) ?? fresh]))
  const state: Working = {
    before,
    wans,
    now,
    reasons: new Map(),
    trial: before.trial,
    joined: new Set(before.joined),
    memories: isSample ? new Map(wans.map((wan) => [wan.name, recordRates(known.get(wan.name) ?? fresh, wan)])) : known,
  }
  const cast = chosen(state)
  // What is measured across a change from outside says nothing.
  if (!isSame(cast, before.inUse)) state.trial = undefined
  else if (isSample) decide(state)
  const used = chosen(state)
  const reasons = reasonsOf(state, used)
  for (const { name, usable } of wans) if (usable && used.has(name)) remember(state, name, { hasServed: true })
  return {
    inUse: used,
    reasons,
    joined: new Set([...state.joined].filter((name) => used.has(name) || state.trial?.wan === name)),
    memories: state.memories,
    trial: state.trial,
    sampledAt: isSample ? now : before.sampledAt,
  }
}

interface Working {
  readonly before: Selection
  readonly wans: readonly WanReport[]
  readonly now: number
  readonly memories: Map<string, Memory>
  readonly joined: Set<string>
  readonly reasons: Map<string, string>
  trial: Trial | undefined
}

const roleOf = ({ role, volumeExhausted }: WanReport): Role => (volumeExhausted ? 'backup' : role)

function recordRates(memory: Memory, { receivedPerSecond, sentPerSecond }: WanReport): Memory {
  const recent = [...memory.recent, { receivedPerSecond, sentPerSecond }].slice(-keptSamples)
  const held = recent.slice(-measuredSamples)
  const ceiling = { ...memory.ceiling }
  for (const direction of directions) {
    const lowest = held.length < measuredSamples ? 0 : Math.min(...held.map((one) => one[direction]))
    const rate = recent.at(-1)?.[direction] ?? 0
    ceiling[direction] = Math.max(lowest, ceiling[direction] * (rate < busy ? 1 : keepPerSample))
  }
  return { ...memory, recent, ceiling }
}

/** The WANs to use by role, health and what was decided before. */
function chosen({ wans, memories, joined, now, trial }: Working): Set<string> {
  const usable = wans.filter(({ usable }) => usable)
  const isIn = ({ name }: WanReport) =>
    (memories.get(name)?.outUntil ?? 0) <= now && !(trial?.kind === 'drag' && trial.wan === name)
  for (const role of ['normal', 'overflow', 'backup'] as const) {
    const all = usable.filter((wan) => roleOf(wan) === role)
    if (all.length === 0) continue
    const inside = all.filter(isIn)
    const more = role === 'normal' ? usable.filter((wan) => roleOf(wan) === 'overflow' && joined.has(wan.name) && isIn(wan)) : []
    return new Set([...(inside.length > 0 ? inside : all), ...more].map(({ name }) => name))
  }
  // Nothing is gained by taking away the last ones.
  const rest = wans.filter((wan) => roleOf(wan) !== 'backup')
  return new Set((rest.length > 0 ? rest : wans).map(({ name }) => name))
}

/** Ends a trial that is due or, where none runs, makes at most one change. */
function decide(state: Working): void {
  const { now } = state
  if (state.trial !== undefined) {
    if (now >= state.trial.endsAt) judge(state, state.trial)
    return
  }
  leave(state) || guard(state) || join(state)
}

const mean = (values: readonly number[]) => (values.length === 0 ? 0 : values.reduce((sum, one) => sum + one, 0) / values.length)

function rateOf({ memories }: Working, name: string, direction: Direction, samples = measuredSamples): number {
  return mean((memories.get(name)?.recent ?? []).slice(-samples).map((one) => one[direction]))
}

/** Of all WANs: what a WAN that is just going out of use still carries counts too. */
const sumOf = (state: Working, direction: Direction, samples?: number) =>
  state.wans.reduce((sum, { name }) => sum + rateOf(state, name, direction, samples), 0)

const ceilingOf = ({ memories }: Working, names: Iterable<string>, direction: Direction) =>
  [...names].reduce((sum, name) => sum + (memories.get(name)?.ceiling[direction] ?? 0), 0)

function remember({ memories }: Working, name: string, change: Partial<Memory>): void {
  memories.set(name, { ...(memories.get(name) ?? fresh), ...change })
}

const later = (times: number, from = shortestOutMs) => Math.min(from * 2 ** times, longestOutMs)

function judge(state: Working, trial: Trial): void {
  const { now, memories } = state
  const { kind, wan, direction, before, wanted } = trial
  const after = sumOf(state, direction)
  const memory = memories.get(wan) ?? fresh
  state.trial = undefined
  if (kind === 'join') {
    if (after >= wanted) {
      remember(state, wan, { failures: 0 })
      return
    }
    state.joined.delete(wan)
    // Where the transfer just ended nothing is known; else the line was not what held it back.
    const ended = after < fullShare * before
    const failures = ended ? memory.failures : memory.failures + 1
    remember(state, wan, { failures, cooldownUntil: now + (ended ? cooldownMs : later(failures)) })
    state.reasons.set(
      wan,
      ended
        ? `overflow WAN ${wan} leaves: the others are no longer full`
        : `overflow WAN ${wan} leaves: the sum was ${mbit(before)} without it and is ${mbit(after)} with it`,
    )
  } else if (after >= wanted) {
    const outMs = later(memory.drags)
    remember(state, wan, { outUntil: now + outMs, clearUntil: now + outMs + trialMs, drags: memory.drags + 1 })
    state.reasons.set(
      wan,
      `WAN ${wan} stays out for ${outMs / 60_000} min: the sum was ${mbit(before)} with it and is ${mbit(after)} without it`,
    )
  } else {
    remember(state, wan, { clearUntil: now + clearMs, drags: 0 })
    state.reasons.set(
      wan,
      `WAN ${wan} is in use again: the sum is not much higher without it (${mbit(before)}, then ${mbit(after)})`,
    )
  }
}

/** The WAN that joined last leaves when the rest has room for all. */
function leave(state: Working): boolean {
  const { before, joined, memories, now } = state
  const last = [...joined].at(-1)
  if (last === undefined || !before.inUse.has(last)) return false
  const rest = [...before.inUse].filter((name) => name !== last)
  const kept = memories.get(last)?.recent.length ?? 0
  const fits = directions.every((direction) => {
    const peak = Math.max(
      ...Array.from({ length: kept }, (_, at) =>
        state.wans.reduce((sum, { name }) => sum + (memories.get(name)?.recent.at(-1 - at)?.[direction] ?? 0), 0),
      ),
    )
    return peak <= Math.max(busy, fitShare * ceilingOf(state, rest, direction))
  })
  if (!fits) return false
  joined.delete(last)
  remember(state, last, { cooldownUntil: now + cooldownMs })
  state.reasons.set(last, `overflow WAN ${last} leaves: ${list(rest)} can carry it alone`)
  return true
}

/** Is there a WAN with which the sum is far below what the others carried without it? */
function guard(state: Working): boolean {
  const { before, memories, wans, now } = state
  const used = wans.filter(({ name, usable }) => usable && before.inUse.has(name))
  for (const direction of directions) {
    const sum = sumOf(state, direction, keptSamples)
    if (sum < busy) continue
    for (const { name, rttMs } of used) {
      const others = used.filter((one) => one.name !== name)
      const memory = memories.get(name) ?? fresh
      const could = ceilingOf(
        state,
        others.map((one) => one.name),
        direction,
      )
      const quickest = Math.min(...others.map((one) => one.rttMs ?? Number.POSITIVE_INFINITY))
      const isSlow = rttMs === undefined || !Number.isFinite(quickest) || rttMs >= Math.max(crawlMinRttMs, crawlRtts * quickest)
      const crawls = rateOf(state, name, direction, keptSamples) < crawlShare * could
      if (others.length === 0 || memory.recent.length < keptSamples || memory.clearUntil > now) continue
      if (!isSlow || !crawls || could < dragMinRate || sum > dragShare * could) continue
      // Where clients ask for more by chance, the sum rises too, but hardly to what the others can carry.
      const wanted = Math.max(dragGain * sum, dragShare * could)
      state.trial = { kind: 'drag', wan: name, direction, before: sum, wanted, endsAt: now + trialMs }
      state.reasons.set(
        name,
        `WAN ${name} is taken out for a trial: with it the sum is ${mbit(sum)}, ${list(others.map((one) => one.name))} alone carried ${mbit(could)}`,
      )
      return true
    }
  }
  return false
}

/** The next overflow WAN joins while all that are used are full. */
function join(state: Working): boolean {
  const { before, memories, wans, now } = state
  if (!wans.some((wan) => wan.usable && roleOf(wan) === 'normal')) return false
  const waiting = wans.find(
    (wan) =>
      wan.usable && roleOf(wan) === 'overflow' && !before.inUse.has(wan.name) && hasCooledDown(memories.get(wan.name), now),
  )
  if (waiting === undefined) return false
  const used = [...before.inUse]
  const direction = directions.find((one) => {
    const ceiling = ceilingOf(state, used, one)
    return Array.from({ length: measuredSamples }, (_, at) =>
      used.reduce((sum, name) => sum + (memories.get(name)?.recent.at(-1 - at)?.[one] ?? 0), 0),
    ).every((sum) => sum >= busy && sum >= fullShare * ceiling)
  })
  if (direction === undefined) return false
  const sum = sumOf(state, direction)
  state.joined.add(waiting.name)
  state.trial = { kind: 'join', wan: waiting.name, direction, before: sum, wanted: joinGain * sum, endsAt: now + trialMs }
  state.reasons.set(
    waiting.name,
    `overflow WAN ${waiting.name} joins: ${list(used)} has been full for ${measuredSamples} s at ${mbit(sum)}`,
  )
  return true
}

const hasCooledDown = (memory: Memory | undefined, now: number) =>
  memory === undefined || (memory.cooldownUntil <= now && memory.outUntil <= now)

function reasonsOf({ before, wans, reasons, memories }: Working, used: ReadonlySet<string>): Map<string, string> {
  const anyUsable = wans.some(({ usable }) => usable)
  const texts = new Map(reasons)
  for (const wan of wans) {
    const { name, usable, role, volumeExhausted } = wan
    if (used.has(name) === before.inUse.has(name) || texts.has(name)) continue
    // While none is up, those that are left are used by name only.
    if (used.has(name) && !usable) continue
    if (used.has(name)) {
      const isOnly = roleOf(wan) !== 'normal' && anyUsable
      const again = memories.get(name)?.hasServed ? ' again' : ''
      texts.set(name, isOnly ? `${roleOf(wan)} WAN ${name} takes over: no better WAN is up` : `WAN ${name} is in use${again}`)
    }
    // That it is not up, its health has said.
    else if (!usable) continue
    else if (volumeExhausted && role !== 'backup') texts.set(name, `WAN ${name} is out of use: its monthly volume is used up`)
    else texts.set(name, `${roleOf(wan)} WAN ${name} is out of use: ${list([...used])} carries all`)
  }
  return texts
}

const mbit = (bytesPerSecond: number) => `${((bytesPerSecond * 8) / 1e6).toFixed(1)} Mbit/s`
const list = (names: readonly string[]) => names.join(' and ')
const isSame = (one: ReadonlySet<string>, other: ReadonlySet<string>) =>
  one.size === other.size && [...one].every((name) => other.has(name))
