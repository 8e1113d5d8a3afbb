/** Events of WANs. */
import type { Family } from '../../base/address.js'
import { info, type Lines, warn } from './line.js'

/** One WAN. `family`: left out if HAGs have addresses of one family only. */
interface Link {
  readonly wan: string
  readonly family?: Family | undefined
}

export interface WanEvents {
  /** Its health, or its address while it is up. */
  'wan-changed': Link & {
    readonly state: 'down' | 'probing' | 'up' | 'degraded'
    readonly reason: string
    readonly rttMs: number | undefined
  }
  /** It is used after so many more answers. */
  'wan-answers-again': Link & { readonly missing: number }
  /** What its path does to MPTCP. */
  'wan-mptcp': Link & { readonly support: 'unknown' | 'yes' | 'blocked' | 'stripped' }
  'wan-full-size': { readonly wan: string; readonly passes: boolean }
  /** Which WANs are in use, or why they stay so. */
  roles: { readonly text: string }
}

const nameOf = ({ wan, family }: Link) => (family === undefined ? wan : `${wan} (IPv${family})`)

export const wanLines: Lines<WanEvents> = {
  'wan-changed': ({ state, reason, rttMs, ...link }) =>
    (state === 'down' ? warn : info)(
      `WAN ${nameOf(link)} is ${state}: ${reason}`,
      rttMs === undefined ? {} : { rttMs: Math.round(rttMs) },
    ),
  'wan-answers-again': ({ missing, ...link }) =>
    info(`WAN ${nameOf(link)} answers again: it is used after ${missing} more, because it fell lately`),
  'wan-mptcp': ({ support, ...link }) => {
    if (support === 'yes') return info(`WAN ${nameOf(link)} carries MPTCP again`)
    const what = support === 'blocked' ? 'drops it' : 'removes it'
    return warn(`WAN ${nameOf(link)} carries no MPTCP, something on its path ${what}: what begins there is not bonded`)
  },
  'wan-full-size': ({ wan, passes }) =>
    passes
      ? info(`WAN ${wan} carries full-size packets again`)
      : warn(
          `WAN ${wan} is down: full-size packets vanish on its path, small ones pass: lower its MTU (ip link set dev IFACE mtu 1400, say); until then it is used only where no other WAN works`,
        ),
  roles: ({ text }) => info(text),
}
