/** Counts connections by path, from the engine's events. */

import { formatSocketAddress, type SocketAddress } from '../../base/address.js'
import type { DialOutcome } from '../../engine/race.js'
import type { Path } from '../model.js'

type Stage = Extract<DialOutcome, { type: 'failed' }>['stage']

export interface PathCounts {
  /** Not set: direct, without a HAG. */
  hag?: SocketAddress
  wan: string
  /** Connections that this path served. Those of the fast path count when they are over. */
  opened: number
  /** Attempts that failed. */
  failed: Record<Stage, number>
  /** Those of `opened` that fell back from MPTCP to plain TCP. */
  fallbacks: number
  /** Bytes of payload of ended connections, to and from the Internet. */
  sent: number
  received: number
}

export class PathCounters {
  readonly #all = new Map<string, PathCounts>()

  record(path: Path, event: DialOutcome): void {
    const counts = this.#of(path)
    if (event.type === 'failed') counts.failed[event.stage]++
    if (event.type === 'opened' || (event.type === 'closed' && event.fastPath !== undefined)) counts.opened++
    if (event.type === 'opened' && path.protocol === 'mptcp' && event.protocol === 'tcp') counts.fallbacks++
    if (event.type === 'closed') {
      counts.sent += event.sent
      counts.received += event.received
    }
  }

  /** The present counts, in the order in which the paths came into use. */
  read(): PathCounts[] {
    return [...this.#all.values()].map((counts) => ({ ...counts, failed: { ...counts.failed } }))
  }

  /** Keyed by WAN, so that a WAN with a new address goes on counting. */
  #of({ hag, wan }: Path): PathCounts {
    const key = hag === undefined ? wan : `${formatSocketAddress(hag)} ${wan}`
    let counts = this.#all.get(key)
    if (counts === undefined) {
      const failed = { connect: 0, greeting: 0, authentication: 0, request: 0 }
      counts = { wan, opened: 0, failed, fallbacks: 0, sent: 0, received: 0 }
      if (hag !== undefined) counts.hag = { address: hag.address, port: hag.port }
      this.#all.set(key, counts)
    }
    return counts
  }
}
