import type { Scenario } from '../scenario.js'
import { blackHole } from './black-hole.js'
import { bond } from './bond.js'
import { demo } from './demo.js'
import { ethernet } from './ethernet.js'
import { failover } from './failover.js'
import { linkDown } from './link-down.js'
import { twoRouters } from './two-routers.js'

/** What `lab run` knows: a file each. */
export const scenarios: Record<string, Scenario> = {
  bond,
  failover,
  ethernet,
  'two-routers': twoRouters,
  demo,
  'link-down': linkDown,
  'black-hole': blackHole,
}
