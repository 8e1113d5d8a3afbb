/** What the live connections say of a WAN: is what they send over it acknowledged? */

import type { SocketAddress } from '../base/address.js'
import type { Engine } from '../engine/contract.js'
import type { WanLink } from './model.js'

/**
 * True where a HAG has acknowledged something over this address of ours within so many milliseconds; false where none has and subflows
 * wait for it, their retransmission timers expired; undefined where nothing is on its way, or the kernel does not tell (before 5.16).
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
 * True if a HAG has acknowledged something within so many milliseconds over a WAN that is full: more is on its way, and it takes more than
 * twice the least round trip (what BBR keeps in flight takes no longer), or is lost. So a HAG whose program has stopped on an empty line,
 * where its kernel still acknowledges, is no such one.
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
