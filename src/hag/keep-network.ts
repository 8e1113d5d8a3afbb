/** Keeps the machine's network as a HAG needs it while it runs: a pass for a need after every change in the kernel. */
import { BondsocksError } from '../base/errors.js'
import type { HagConfig } from '../config/schema.js'
import { type HagNeed, hagNeeds, hagNote, metNotes } from '../network/desired/hag.js'
import { type Guardian, guardHag } from '../network/guardian.js'
import { HagNetwork } from '../network/hag-network.js'
import { alone, joinHags, type Membership } from '../network/lock.js'
import { complainOfSettings } from '../network/mptcp-settings.js'
import { type Kernel, systemKernel } from '../network/network.js'
import { PassTimer } from '../network/pass-timer.js'
import { needsRoot } from '../network/state.js'
import { type WatchEvents, watchKernel } from '../network/watch.js'
import type { Emit } from '../telemetry/events.js'

/** The time from one pass to the next, in times of its duration, so that a flapping link does not take all processor time. */
const spacing = 8
const minSpacingMs = 50
/** If a pass takes so long and sets up nothing, the table is huge and may change all day. Then nothing of ours can be wrong meanwhile. */
const slowMs = 200
const slowSpacing = 100
const maxSpacingMs = 60_000
/** How often to look again for changes that are not reported, if something has to be mended. */
const lookMs = 600_000
const neverMs = 2 ** 30

export interface KeepParts {
  emit: Emit
  kernel: Kernel
  join(): Promise<Membership>
  guard(): Guardian
  watch(events: WatchEvents, signal: AbortSignal): Promise<void>
}

export function realKeepParts({ listen }: HagConfig, emit: Emit): KeepParts {
  return {
    emit,
    kernel: systemKernel(),
    join: () => joinHags(),
    guard: () => guardHag(emit, listen.port),
    watch: (events, signal) => watchKernel({ ...events, emit }, signal),
  }
}

/** Runs until the signal; then the last HAG of the machine puts everything back. Never rejects; says what it cannot do. */
export async function keepNetwork(config: HagConfig, parts: KeepParts, signal: AbortSignal): Promise<void> {
  const { emit, kernel, join, guard, watch } = parts
  const notRoot = new BondsocksError('NOT_ROOT', needsRoot)
  const joined = (await kernel.mayAdminister()) ? await join().catch((error: Error) => error) : notRoot
  if (joined instanceof BondsocksError && joined.code === notRoot.code) {
    const note = `this machine stays as it is, so answers begin with the kernel's initial window: ${needsRoot}`
    emit({ type: 'hag-need-unmet', need: 'all', note })
    await complainOfSettings({ kernel, emit })
    return
  }
  if (joined instanceof Error) emit({ type: 'other-hags-unknown', reason: joined.message })
  const member = joined instanceof Error ? alone : joined
  const hasWindow = config.initial_window > 0
  const guardian = hasWindow ? guard() : undefined
  const network = new HagNetwork(kernel)
  const keepers = hagNeeds.map((need) => keeper(need, config, network, member.isFirst, emit))
  const changed = () => {
    for (const one of keepers) one.schedule()
  }
  changed()
  await Promise.all([
    complainOfSettings({ kernel, emit }),
    // Changes of the other needs are not reported.
    hasWindow && watch({ onChange: changed, onGone: changed, onAddressGone: changed }, signal),
    ...keepers.map((one) => one.run(signal)),
  ])
  if (member.isLast()) {
    await network.remove().catch(({ message }: Error) => emit({ type: 'hag-network-not-restored', reason: message }))
  }
  await guardian?.dismiss()
  member.release()
}

function keeper(need: HagNeed, config: HagConfig, network: HagNetwork, isFirstHag: boolean, emit: Emit): PassTimer {
  const isUnwanted = (need === 'window4' || need === 'window6') && config.initial_window === 0
  let said = ''
  let isFirst = true
  const pass = async () => {
    let note = ''
    try {
      // Another HAG may have come since the first one.
      const { notes } = await network.apply(config, { isAlone: isFirst && isFirstHag, needs: [need] })
      isFirst = false
      note = notes[0] ?? ''
    } catch (error) {
      note = hagNote(need, (error as Error).message)
    }
    if (note === said || isUnwanted) return
    said = note
    if (note !== '') emit({ type: 'hag-need-unmet', need, note })
    else emit({ type: 'hag-need-met', need, note: metNotes[need](config) })
  }
  return new PassTimer({
    pass,
    waitMs: () => (said === '' ? neverMs : (network.retryInMs(need) ?? lookMs)),
    spacingMs: (tookMs) => {
      const isInVain = said !== '' && tookMs > slowMs
      return Math.min(Math.max(minSpacingMs, tookMs * (isInVain ? slowSpacing : spacing)), maxSpacingMs)
    },
  })
}
