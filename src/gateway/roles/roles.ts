/**
 * Decides which WANs are used, by role, overflow and the drag guard. A state machine without clock or I/O. No rates are configured: what a
 * WAN can carry is learned, and whether a change helps is found out by trying it.
 */
import type { UseReason } from '../../telemetry/events/use.js'
import { judgeDrag, tryWithoutCrawling } from './drag-guard.js'
import { judgeJoin, letOverflowJoin, letOverflowLeave } from './overflow.js'
import { fresh, recordRates, remember, roleOf, type Selection, type WanReport, type Working } from './selection.js'

/** The selection before anything is known; `used`: the WANs that have endpoints now. */
export const initial = (used: Iterable<string>): Selection => ({
  inUse: new Set(used),
  reasons: new Map(),
  joined: new Set(),
  memories: new Map(),
  trial: undefined,
  sampledAt: Number.NEGATIVE_INFINITY,
})

/** A call between two samples, after a change of health, has no new rates. */
const sampleMs = 900

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
  // A measurement across a change from outside tells nothing.
  if (!isSame(cast, before.inUse)) state.trial = undefined
  else if (isSample) decide(state)
  const used = chosen(state)
  const reasons = reasonsOf(state, used)
  for (const { name, isUsable } of wans) if (isUsable && used.has(name)) remember(state, name, { hasServed: true })
  return {
    inUse: used,
    reasons,
    joined: new Set([...state.joined].filter((name) => used.has(name) || state.trial?.wan === name)),
    memories: state.memories,
    trial: state.trial,
    sampledAt: isSample ? now : before.sampledAt,
  }
}

/** The WANs to use by role, health and what was decided before. */
function chosen({ wans, memories, joined, now, trial }: Working): Set<string> {
  const usable = wans.filter(({ isUsable }) => isUsable)
  const isIn = ({ name }: WanReport) =>
    (memories.get(name)?.outUntil ?? 0) <= now && !(trial?.kind === 'drag' && trial.wan === name)
  for (const role of ['normal', 'overflow', 'backup'] as const) {
    const all = usable.filter((wan) => roleOf(wan) === role)
    if (all.length === 0) continue
    const inside = all.filter(isIn)
    const more = role === 'normal' ? usable.filter((wan) => roleOf(wan) === 'overflow' && joined.has(wan.name) && isIn(wan)) : []
    return new Set([...(inside.length > 0 ? inside : all), ...more].map(({ name }) => name))
  }
  // Taking away the last ones gains nothing.
  const rest = wans.filter((wan) => roleOf(wan) !== 'backup')
  return new Set((rest.length > 0 ? rest : wans).map(({ name }) => name))
}

/** Ends a trial that is due or, if none runs, makes at most one change. */
function decide(state: Working): void {
  const { now } = state
  if (state.trial !== undefined) {
    if (now < state.trial.endsAt) return
    const { trial } = state
    state.trial = undefined
    if (trial.kind === 'join') judgeJoin(state, trial)
    else judgeDrag(state, trial)
    return
  }
  letOverflowLeave(state) || tryWithoutCrawling(state) || letOverflowJoin(state)
}

function reasonsOf({ before, wans, reasons, memories }: Working, used: ReadonlySet<string>): Map<string, UseReason> {
  const isAnyUsable = wans.some(({ isUsable }) => isUsable)
  const all = new Map(reasons)
  for (const wan of wans) {
    const { name, isUsable, role, volumeExhausted } = wan
    if (used.has(name) === before.inUse.has(name) || all.has(name)) continue
    // While no WAN is up, the rest are in use only nominally.
    if (used.has(name) && !isUsable) continue
    if (used.has(name)) {
      const isOnly = roleOf(wan) !== 'normal' && isAnyUsable
      const isAgain = memories.get(name)?.hasServed === true
      all.set(name, isOnly ? { why: 'no-better', role: roleOf(wan) } : { why: 'usable', isAgain })
    }
    // Its health has already reported that it is not up.
    else if (!isUsable) continue
    else if (volumeExhausted && role !== 'backup') all.set(name, { why: 'volume-exhausted' })
    else all.set(name, { why: 'not-needed', role: roleOf(wan), others: [...used] })
  }
  return all
}

const isSame = (one: ReadonlySet<string>, other: ReadonlySet<string>) =>
  one.size === other.size && [...one].every((name) => other.has(name))
