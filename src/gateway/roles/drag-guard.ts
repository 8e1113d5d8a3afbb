/**
 * A WAN that crawls can hold the whole bundle up: it is taken out for a trial, and stays out if the sum is higher without it. Without clock or
 * I/O.
 */
import {
  busyRate,
  ceilingOf,
  directions,
  fresh,
  keptSamples,
  list,
  mbit,
  outMs,
  rateOf,
  remember,
  sumOf,
  type Trial,
  trialMs,
  type Working,
} from './selection.js'

/** Of a bundle with a crawling WAN, measured in the lab: the sum falls from 20 Mbit/s to 2 to 8 in the mean over five seconds. */
const dragShare = 0.75
/** Bytes a second that the others have carried at least (2 Mbit/s): below it a trial would compare trickles. */
const dragMinRate = 250_000
const crawlShare = 0.1
/** What is quicker than this cannot hold the others up, however much quicker they are. */
const crawlMinRttMs = 100
const crawlRtts = 3
const dragGain = 1.3
const clearMs = 180_000

/** Is there a WAN with which the sum is far below what the others carried without it? */
export function tryWithoutCrawling(state: Working): boolean {
  const { before, memories, wans, now } = state
  const used = wans.filter(({ name, usable }) => usable && before.inUse.has(name))
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

/** At the end of a trial: has the sum grown without it? */
export function judgeDrag(state: Working, { wan, direction, before, wanted }: Trial): void {
  const { now, memories, reasons } = state
  const after = sumOf(state, direction)
  if (after < wanted) {
    remember(state, wan, { clearUntil: now + clearMs, drags: 0 })
    reasons.set(wan, `WAN ${wan} is in use again: the sum is not much higher without it (${mbit(before)}, then ${mbit(after)})`)
    return
  }
  const drags = memories.get(wan)?.drags ?? 0
  const forMs = outMs(drags)
  remember(state, wan, { outUntil: now + forMs, clearUntil: now + forMs + trialMs, drags: drags + 1 })
  reasons.set(
    wan,
    `WAN ${wan} stays out for ${forMs / 60_000} min: the sum was ${mbit(before)} with it and is ${mbit(after)} without it`,
  )
}
