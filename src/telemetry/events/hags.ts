/** Events of HAGs. */
import { info, type Lines, warn } from './line.js'

/** One HAG: its address and port, as a person writes them. */
interface OfHag {
  readonly hag: string
}

export interface HagEvents {
  /** Those that there are after a change, best first. */
  'hag-list': { readonly hags: readonly string[] }
  /** A name from the config, or of an SRV record. `code`: why it cannot be looked up; left out: it can again. */
  'hag-lookup': { readonly name: string; readonly code?: string }
  'hag-changed': OfHag & { readonly state: 'unknown' | 'up' | 'returning' | 'down'; readonly reason: string }
  'hag-answers-requests': OfHag
  /** Over one WAN. `reason`: why it refuses us there; empty: it serves us there again. */
  'hag-admission': OfHag & { readonly wan: string; readonly bind: string; readonly reason: string }
  'hag-reaches-ipv6': OfHag
}

export const hagLines: Lines<HagEvents> = {
  'hag-list': ({ hags }) => info('HAGs changed', { hags }),
  'hag-lookup': ({ name, code }) =>
    code === undefined
      ? info(`the HAG ${name} can be looked up again`)
      : warn(`the HAG ${name} cannot be looked up: ${code}`, { code }),
  'hag-changed': ({ hag, state, reason }) => {
    if (state === 'down') return warn(`HAG ${hag} is down: ${reason}`)
    return info(state === 'returning' ? `HAG ${hag} answers again` : `HAG ${hag} is up`)
  },
  'hag-answers-requests': ({ hag }) => info(`HAG ${hag} answers requests again`),
  'hag-admission': ({ hag, wan, bind, reason }) =>
    reason === ''
      ? info(`HAG ${hag} serves us over WAN ${wan}, from ${bind}`)
      : warn(`HAG ${hag} refuses us over WAN ${wan}, from ${bind}: ${reason}`),
  'hag-reaches-ipv6': ({ hag }) => info(`HAG ${hag} reaches IPv6 destinations again`),
}
