import type { WanPath } from '../../src/gateway/model.js'

/** A WAN that works, but for what is said otherwise. */
export function wanPath(wan: string, bind: string, more: Partial<WanPath> = {}): WanPath {
  return { wan, bind, metered: false, usable: true, lost: false, rttMs: 30, leastRttMs: 30, protocol: 'mptcp', ...more }
}
