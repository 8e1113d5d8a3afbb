/** What the live connections say of a WAN: is what they send over it acknowledged? */
import type { Engine } from '../native/index.js'

/**
 * True where a HAG has acknowledged something over this address of ours within so many milliseconds; false where none has and subflows
 * wait for it, their retransmission timers expired; undefined where nothing is on its way, or the kernel does not tell (before 6.5).
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
