/** Overflow WANs join while the others are full, and leave when those can carry all. Without clock or I/O. */
import {
  busyRate,
  ceilingOf,
  directions,
  type Memory,
  measuredSamples,
  outMs,
  remember,
  roleOf,
  sumOf,
  type Trial,
  trialMs,
  type Working,
} from './selection.js'

const fullShare = 0.85
const fitShare = 0.7
/** If a joining WAN adds less, it was not needed. */
const joinGain = 1.15
const cooldownMs = 15_000

/** Otherwise overflow WANs are used anyway. */
const hasNormal = ({ wans }: Working) => wans.some((wan) => wan.isUsable && roleOf(wan) === 'normal')

/** The WAN that joined last leaves when the rest has room for all. */
export function letOverflowLeave(state: Working): boolean {
  if (!hasNormal(state)) return false
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
    return peak <= Math.max(busyRate, fitShare * ceilingOf(state, rest, direction))
  })
  if (!fits) return false
  joined.delete(last)
  remember(state, last, { cooldownUntil: now + cooldownMs })
  state.reasons.set(last, { why: 'others-suffice', others: rest })
  return true
}

/** The next overflow WAN joins while all that are used are full. */
export function letOverflowJoin(state: Working): boolean {
  const { before, memories, wans, now } = state
  if (!hasNormal(state)) return false
  const waiting = wans.find(
    (wan) =>
      wan.isUsable && roleOf(wan) === 'overflow' && !before.inUse.has(wan.name) && hasCooledDown(memories.get(wan.name), now),
  )
  if (waiting === undefined) return false
  const used = [...before.inUse]
  const direction = directions.find((one) => {
    const ceiling = ceilingOf(state, used, one)
    return Array.from({ length: measuredSamples }, (_, at) =>
      used.reduce((sum, name) => sum + (memories.get(name)?.recent.at(-1 - at)?.[one] ?? 0), 0),
    ).every((sum) => sum >= busyRate && sum >= fullShare * ceiling)
  })
  if (direction === undefined) return false
  const sum = sumOf(state, direction)
  state.joined.add(waiting.name)
  state.trial = { kind: 'join', wan: waiting.name, direction, before: sum, wanted: joinGain * sum, endsAt: now + trialMs }
  state.reasons.set(waiting.name, { why: 'others-full', others: used, seconds: measuredSamples, rate: sum })
  return true
}

const hasCooledDown = (memory: Memory | undefined, now: number) =>
  memory === undefined || (memory.cooldownUntil <= now && memory.outUntil <= now)

/** At the end of a trial: decides whether the sum has grown. */
export function judgeJoin(state: Working, { wan, direction, before, wanted }: Trial): void {
  const { now, memories, joined, reasons } = state
  const after = sumOf(state, direction)
  if (after >= wanted) {
    remember(state, wan, { failures: 0 })
    return
  }
  joined.delete(wan)
  // If the transfer just ended, nothing is known. Otherwise the line did not limit it.
  const isOver = after < fullShare * before
  const failures = (memories.get(wan)?.failures ?? 0) + (isOver ? 0 : 1)
  remember(state, wan, { failures, cooldownUntil: now + (isOver ? cooldownMs : outMs(failures)) })
  reasons.set(wan, isOver ? { why: 'others-not-full' } : { why: 'no-gain', rateWithout: before, rateWith: after })
}
