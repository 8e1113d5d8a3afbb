/** Socket options that the kernel does not take on MPTCP sockets, or not from this user: says once what one would notice. */

import { pause } from '../base/pause.js'
import type { Native } from '../engine/contract.js'
import type { OptionEffect } from '../telemetry/events/service.js'
import type { Emit, Event } from '../telemetry/events.js'

const lookMs = 60_000

/** The lack of others is not noticed. */
const effects: Record<string, OptionEffect> = {
  IP_BIND_ADDRESS_NO_PORT: 'few-ports',
  SO_KEEPALIVE: 'idle-dies',
  TCP_KEEPIDLE: 'idle-dies',
  SO_OOBINLINE: 'urgent-lost',
  SO_RCVBUFFORCE: 'slow-download',
  SO_RCVLOWAT: 'slow-download',
  SO_SNDBUFFORCE: 'slow-upload',
  TCP_NODELAY: 'small-waits',
}

/** Events of options whose effect was not told yet; adds it to `told`. */
export function newsOfOptions(refused: ReturnType<Native['refusedOptions']>, told: Set<OptionEffect>): Event[] {
  return refused.flatMap(({ option, code }): Event[] => {
    const effect = effects[option]
    if (effect === undefined || told.has(effect)) return []
    told.add(effect)
    return [{ type: 'option-refused', option, code, effect }]
  })
}

/** Runs until the signal. Never rejects. */
export async function watchOptions(
  native: Pick<Native, 'refusedOptions'>,
  emit: Emit,
  signal: AbortSignal,
  everyMs = lookMs,
): Promise<void> {
  const told = new Set<OptionEffect>()
  while (!signal.aborted) {
    await pause(everyMs, signal)
    for (const event of newsOfOptions(native.refusedOptions(), told)) emit(event)
  }
}
