/** Tells from live connections whether what they send over a WAN is acknowledged. */

import type { SocketAddress } from '../base/address.js'
import type { Engine } from '../engine/contract.js'
import type { WanLink } from './model.js'

/**
 * True if a HAG has acknowledged something over this address of ours within so many milliseconds. False if not, and subflows wait with
 * expired retransmission timers. Undefined if nothing is in flight, or the kernel does not tell (before 5.16).
 */
export async function isAcknowledged(
  engine: Pick<Engine, 'inspect'>,
  address: string,
  withinMs: number,
): Promise<boolean | undefined> {
  const connections = await engine.inspect()
  const subflows = connections.flatMap((one) => one.subflows.filter(({ local }) => local.address === address))
  if (subflows.some(({ lastAckMs }) => lastAckMs < withinMs)) return true
  return subflows.some(({ unackedPackets, timeouts }) => unackedPackets > 0 && timeouts > 0) ? false : undefined
}

/**
 * True if a HAG has acknowledged something within so many milliseconds over a full WAN. Full means: bytes are in flight, and take more than
 * twice the smallest round trip (what BBR keeps in flight takes no longer) or get lost. So false for a HAG on an empty line whose program
 * has stopped but whose kernel still acknowledges.
 */
export async function isBehindFullWan(
  engine: Pick<Engine, 'inspect'>,
  hag: SocketAddress,
  links: readonly Pick<WanLink, 'bind' | 'minRttMs'>[],
  withinMs: number,
): Promise<boolean> {
  const connections = await engine.inspect()
  const subflows = connections.flatMap((one) =>
    one.subflows.filter(({ remote }) => remote.address === hag.address && remote.port === hag.port),
  )
  return links.some(({ bind, minRttMs = 100 }) => {
    const own = subflows.filter(({ local }) => local.address === bind)
    const isFull = own.some(
      ({ unackedPackets, rttUs, timeouts }) => unackedPackets > 0 && (rttUs > 2000 * minRttMs || timeouts > 0),
    )
    return isFull && own.some(({ lastAckMs }) => lastAckMs < withinMs)
  })
}
