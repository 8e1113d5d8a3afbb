/** Which family connections to HAGs had best go by, where both can be had: a connection is bonded over the WANs of its family only. */
import type { Family } from '../../base/address.js'
import type { WanAddresses } from '../../network/state.js'
import type { WanPath } from '../model.js'

/**
 * The family that most WANs have. `inUse`: those that connections may go over now. Where both are as good it stays as it is, and at first
 * is IPv4, of which a packet carries 20 bytes more.
 */
export function bestFamily(
  paths: Record<Family, readonly WanPath[]>,
  inUse: ReadonlySet<string>,
  current: Family | undefined,
): Family {
  const count = (family: Family, test: (path: WanPath) => boolean) =>
    paths[family].filter((path) => inUse.has(path.wan) && test(path)).length
  const more = (test: (path: WanPath) => boolean): Family | undefined => {
    const [four, six] = [count(4, test), count(6, test)]
    return four === six ? undefined : four > six ? 4 : 6
  }
  // Before anybody has answered, and while all are lost, what has an address counts.
  return more(({ usable }) => usable) ?? more(({ lost }) => !lost) ?? current ?? 4
}

/** Of WANs that have an address, those that connections to HAGs cannot use. `hagFamilies`: those of the HAGs, the one in use first. */
export function withoutHag(wans: readonly WanAddresses[], [inUse, other]: readonly Family[]): string[] {
  if (inUse === undefined) return []
  const rest = inUse === 4 ? 6 : 4
  return wans
    .filter((wan) => wan[`address${inUse}`] === undefined && wan[`address${rest}`] !== undefined)
    .map(({ name }) => {
      const why = other === undefined ? `no HAG has an IPv${rest} one` : `more WANs have IPv${inUse} than IPv${rest}`
      return `WAN ${name} is not in the bundle: it has no IPv${inUse} address, and ${why}`
    })
}
