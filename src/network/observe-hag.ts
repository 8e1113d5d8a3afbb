/** Reads what a HAG needs to know about its machine, for each need separately. */
import type { Family } from '../base/address.js'
import type { HagNeed } from './desired/hag.js'
import { mtuProbing } from './desired/sysctls.js'
import type { Kernel } from './kernel/kernel.js'
import { parseSubflowLimit } from './kernel/mptcp.js'
import { capture, observeCopy } from './observe.js'
import { nothingSaved, parseSaved } from './saved.js'
import type { Observed, Saved } from './state.js'

const nothingSeen: Observed = {
  families: [],
  interfaces: [],
  mainRoutes: [],
  otherDefaults: [],
  leases: [],
  rules: [],
  otherRules: [],
  routes: [],
  endpoints: [],
  subflows: undefined,
  copies: [],
  isBridgeFiltering: { 4: false, 6: false },
  chains: [],
  chainNotes: [],
  strays: [],
  sysctls: new Map(),
  saved: nothingSaved,
  loss: undefined,
  isStateStale: false,
  outside: { astray: new Map(), notes: [] },
  notes: [],
}

/** What was found for a need. */
export interface Found {
  observed: Observed
  /** The whole state file; `observed` has what is about this need. */
  saved: Saved
}

/** Rejects if it cannot be read. */
export async function observeNeed(kernel: Kernel, need: HagNeed): Promise<Found> {
  const { saved } = parseSaved(await kernel.readState())
  const own = partOf(need, saved)
  return { observed: { ...nothingSeen, ...(await look(kernel, need)), saved: own }, saved }
}

async function look(kernel: Kernel, need: HagNeed): Promise<Partial<Observed>> {
  if (need === 'probing') return { sysctls: await kernel.readSysctls([mtuProbing]) }
  if (need === 'subflows') return { subflows: parseSubflowLimit(await capture(kernel, ['ip', 'mptcp', 'limits', 'show'])) }
  const family: Family = need === 'window4' ? 4 : 6
  const isThere = family === 4 || (await kernel.readSysctls(['net/ipv6/conf/all/forwarding'])).size > 0
  return { copies: isThere ? [await observeCopy(kernel, family)] : [] }
}

function partOf(need: HagNeed, { sysctls, subflows }: Saved): Saved {
  const held = need === 'probing' ? sysctls[mtuProbing] : undefined
  return {
    ...nothingSaved,
    sysctls: held === undefined ? {} : { [mtuProbing]: held },
    subflows: need === 'subflows' ? subflows : undefined,
  }
}
