/** Keeps the machine's network as a HAG needs it, for as long as the HAG runs: one pass of a need after every change of the kernel's. */
import { BondsocksError } from '../base/errors.js'
import type { HagConfig } from '../config/schema.js'
import { type HagNeed, hagNeeds, hagNote } from '../network/desired/hag.js'
import { type Guardian, guardHag } from '../network/guardian.js'
import { HagNetwork } from '../network/hag-network.js'
import { alone, joinHags, type Membership } from '../network/lock.js'
import { complainOfSettings } from '../network/mptcp-settings.js'
import { type Kernel, systemKernel } from '../network/network.js'
import { Passes } from '../network/passes.js'
import { type WatchEvents, watchKernel } from '../network/watch.js'
import type { Log } from '../telemetry/log.js'

/** From the beginning of one pass to the next, so many times its duration: a flapping link must not eat the processor. */
const spacing = 8
const minSpacingMs = 50
/** A pass that takes this long in vain is about a huge table, which may change all day. Nothing of ours is there that could be wrong meanwhile. */
const slowMs = 200
const slowSpacing = 100
const maxSpacingMs = 60_000
/** What nobody tells us is looked for again, if there is something to be mended. */
const lookMs = 600_000
const neverMs = 2 ** 30

export interface KeepParts {
  log: Log
  kernel: Kernel
  join(): Promise<Membership>
  guard(): Guardian
  watch(events: WatchEvents, signal: AbortSignal): Promise<void>
}

export function realKeepParts({ listen }: HagConfig, log: Log): KeepParts {
  return {
    log,
    kernel: systemKernel(),
    join: () => joinHags(),
    guard: () => guardHag(log, listen.port),
    watch: (events, signal) => watchKernel({ ...events, log }, signal),
  }
}

/** Until the signal; then the last HAG of the machine puts all of it back. Never rejects: what cannot be done is said. */
export async function keepNetwork(config: HagConfig, parts: KeepParts, signal: AbortSignal): Promise<void> {
  const { log, kernel, join, guard, watch } = parts
  const member = await join().catch((error: Error) => {
    log.info(`other HAGs on this machine are not asked: ${error.message}`)
    return alone
  })
  const hasWindow = config.initial_window > 0
  const guardian = hasWindow ? guard() : undefined
  const network = new HagNetwork(kernel)
  const keepers = hagNeeds.map((need) => keeper(need, config, network, member.isFirst, log))
  const changed = () => {
    for (const one of keepers) one.schedule()
  }
  changed()
  await Promise.all([
    complainOfSettings({ kernel, log }),
    // What else a HAG needs nobody tells of.
    hasWindow && watch({ onChange: changed, onGone: changed, onAddressGone: changed }, signal),
    ...keepers.map((one) => one.run(signal)),
  ])
  if (member.isLast()) {
    await network.remove().catch((error: Error) => {
      // Then nothing was set up.
      if (!(error instanceof BondsocksError && error.code === 'NOT_ROOT')) log.warn(error.message)
    })
  }
  await guardian?.dismiss()
  member.release()
}

function keeper(need: HagNeed, config: HagConfig, network: HagNetwork, isFirstHag: boolean, log: Log): Passes {
  const { initial_window: segments } = config
  const isWindow = need === 'window4' || need === 'window6'
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
    if (note === said || (isWindow && segments === 0)) return
    said = note
    if (note !== '') log.info(note)
    else if (isWindow) log.info(`answers over IPv${need.slice(-1)} begin with ${segments} segments again`)
  }
  return new Passes({
    pass,
    waitMs: () => (said === '' ? neverMs : (network.retryInMs(need) ?? lookMs)),
    spacingMs: (tookMs) => {
      const isInVain = said !== '' && tookMs > slowMs
      return Math.min(Math.max(minSpacingMs, tookMs * (isInVain ? slowSpacing : spacing)), maxSpacingMs)
    },
  })
}
