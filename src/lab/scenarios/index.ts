import type { Scenario } from '../scenario.js'
import { blackHole } from './black-hole.js'
import { blockMptcp } from './block-mptcp.js'
import { bond } from './bond.js'
import { demo } from './demo.js'
import { ethernet } from './ethernet.js'
import { failover } from './failover.js'
import { firewallReload } from './firewall-reload.js'
import { flapping } from './flapping.js'
import { hagBlackHole } from './hag-black-hole.js'
import { hagCrash } from './hag-crash.js'
import { hagFailover } from './hag-failover.js'
import { linkDown } from './link-down.js'
import { renumber } from './renumber.js'
import { stripMptcp } from './strip-mptcp.js'
import { twoRouters } from './two-routers.js'

/** The scenarios of `lab run`, a file each. */
export const scenarios: Record<string, Scenario> = {
  bond,
  failover,
  ethernet,
  'two-routers': twoRouters,
  demo,
  'link-down': linkDown,
  'black-hole': blackHole,
  flapping,
  renumber,
  'strip-mptcp': stripMptcp,
  'block-mptcp': blockMptcp,
  'hag-crash': hagCrash,
  'hag-failover': hagFailover,
  'hag-black-hole': hagBlackHole,
  'firewall-reload': firewallReload,
}
