/** Events of WANs. */
import type { Family } from '../../base/address.js'
import { info, type Lines, warn } from './line.js'

/** One WAN. `family`: left out if HAGs have addresses of one family only. */
interface Link {
  readonly wan: string
  readonly family?: Family | undefined
}

/** Where a WAN is. */
export interface Whereabouts {
  readonly name: string
  readonly interface: string
  readonly address4?: string
  readonly address6?: string
}

/** Why a WAN is not in the bundle. */
export type Lack =
  | 'other-device'
  | 'fell-back'
  | 'not-answered'
  | 'limit-reached'
  | 'not-tried'
  | 'reset'
  | 'stripped'
  | 'closed'
  | 'unknown'

export interface WanEvents {
  /** Those that can be used after a change, in the config's order. */
  'wan-list': { readonly wans: readonly Whereabouts[] }
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
  /**
   * The proof that connections use it, or do not. `lack`: undefined if they do; `joined`: those of `connections` that have a subflow from
   * `bind`, which should leave by `device`.
   */
  'wan-bundle': Link & {
    readonly lack: Lack | undefined
    readonly connections: number
    readonly joined: number
    readonly bind: string
    readonly device: string
  }
  /** Connections to HAGs cannot use it. `lacks`: the family of the HAGs in use; `isOutnumbered`: other HAGs have its family, but more WANs have that one. */
  'wan-without-hag': { readonly wan: string; readonly lacks: Family; readonly isOutnumbered: boolean }
  /** Connections have only `lone`, and this WAN, which is calm, is joined to all of them anew. */
  'wan-joins-anew': { readonly wan: string; readonly lone: string; readonly count: number }
  /** The file with what each WAN has carried; the count begins at 0. */
  'volume-lost': { readonly file: string; readonly reason: string }
  'volume-not-kept': { readonly file: string; readonly reason: string }
}

const causes: Record<Exclude<Lack, 'other-device'>, string> = {
  'fell-back':
    'they became plain TCP: the HAG has no MPTCP, or something on the path where they begin removes it; try another port for the HAG',
  'not-answered': 'what would join over it gets no answer: something on its path drops it, often for the option MP_JOIN',
  'limit-reached': "the kernel's limit of subflows is reached (ip mptcp limits)",
  'not-tried': 'the kernel did not try to join it; look at ip mptcp endpoint show and sysctl net.mptcp',
  reset:
    'what would join over it is refused: something on its path resets it, or another machine than the HAG answers there (a load balancer)',
  stripped:
    'what would join over it is answered without MPTCP: something on its path removes the option MP_JOIN; try another port for the HAG',
  closed:
    'what joins over it is answered, and closed at once: the HAG lets no more join (its ip mptcp limits), or something on the path changes MPTCP after the SYN',
  unknown: 'the kernel does not tell why',
}

/** What is known of the cause, for people. */
export const causeOf = (lack: string): string =>
  lack === 'other-device' ? 'what it sends leaves by another interface' : ((causes as Record<string, string>)[lack] ?? lack)

const nameOf = ({ wan, family }: Link) => (family === undefined ? wan : `${wan} (IPv${family})`)

export const wanLines: Lines<WanEvents> = {
  'wan-list': ({ wans }) => info('WANs changed', { wans }),
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
  'wan-bundle': ({ lack, connections, joined, bind, device, ...link }) => {
    const name = `WAN ${nameOf(link)}`
    const share = `${joined} of ${connections} connections use it`
    if (lack === undefined) return info(`${name} is in the bundle again: ${share}`)
    if (lack !== 'other-device') return warn(`${name} is not in the bundle: ${share}; ${causes[lack]}`)
    return warn(
      `${name} carries nothing by ${device}: what is sent from ${bind} leaves by another interface; look at ip rule show and ip route get HAG from ${bind} oif ${device}`,
    )
  },
  'wan-without-hag': ({ wan, lacks, isOutnumbered }) => {
    const has = lacks === 4 ? 6 : 4
    const why = isOutnumbered ? `more WANs have IPv${lacks} than IPv${has}` : `no HAG has an IPv${has} one`
    return warn(`WAN ${wan} is not in the bundle: it has no IPv${lacks} address and gateway, and ${why}`)
  },
  'wan-joins-anew': ({ wan, lone, count }) =>
    info(`${count} connections have only WAN ${lone}: WAN ${wan} joins all of them anew`),
  'volume-lost': ({ file, reason }) => warn(`${file} cannot be read (${reason}): the WANs' volume begins at 0`),
  'volume-not-kept': ({ file, reason }) => warn(`the WANs' volume cannot be kept in ${file}: ${reason}`),
}
