/**
 * A very slow WAN can hold up the whole bundle: it is taken out for a trial, and stays out if the sum is higher without it. Without clock
 * or I/O.
 */
import {
  busyRate,
  ceilingOf,
  directions,
  fresh,
  keptSamples,
  outMs,
  rateOf,
  remember,
  sumOf,
  type Trial,
  trialMs,
  type Working,
} from './selection.js'

/** Measured in the lab: with a crawling WAN the sum falls from 20 Mbit/s to 2 to 8, as the mean of five seconds. */
const dragShare = 0.75
/** The others must have carried so many bytes a second (2 Mbit/s); below, a trial would compare only small rates. */
const dragMinRate = 250_000
const crawlShare = 0.1
/** A WAN with a shorter round trip cannot hold up the others, however fast they are. */
const crawlMinRttMs = 100
const crawlRtts = 3
const dragGain = 1.3
const clearMs = 180_000

/** Looks for a WAN with which the sum is far below what the others carried without it. */
export function tryWithoutCrawling(state: Working): boolean {
  const { before, memories, wans, now } = state
  const used = wans.filter(({ name, isUsable }) => isUsable && before.inUse.has(name))
  for (const direction of directions) {
    const sum = sumOf(state, direction, keptSamples)
    if (sum < busyRate) continue
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
      // If clients just ask for more, the sum rises, too, but hardly to what the others can carry.
      const wanted = Math.max(dragGain * sum, dragShare * could)
      state.trial = { kind: 'drag', wan: name, direction, before: sum, wanted, endsAt: now + trialMs }
      state.reasons.set(name, { why: 'drag-trial', rateWith: sum, others: others.map((one) => one.name), alone: could })
      return true
    }
  }
  return false
}

/** At the end of a trial: decides whether the sum has grown without the WAN. */
export function judgeDrag(state: Working, { wan, direction, before, wanted }: Trial): void {
  const { now, memories, reasons } = state
  const after = sumOf(state, direction)
  if (after < wanted) {
    remember(state, wan, { clearUntil: now + clearMs, drags: 0 })
    reasons.set(wan, { why: 'no-drag', rateWith: before, rateWithout: after })
    return
  }
  const drags = memories.get(wan)?.drags ?? 0
  const forMs = outMs(drags)
  remember(state, wan, { outUntil: now + forMs, clearUntil: now + forMs + trialMs, drags: drags + 1 })
  reasons.set(wan, { why: 'drags', minutes: forMs / 60_000, rateWith: before, rateWithout: after })
}
