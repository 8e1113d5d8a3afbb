import { bulkDown } from './bulk-down.js'
import { bulkUp } from './bulk-up.js'
import { cpuPerGb } from './cpu-per-gb.js'
import { downloads } from './downloads.js'
import { failover } from './failover.js'
import type { Figure } from './figure.js'
import { firstByte } from './first-byte.js'
import { idle } from './idle.js'
import { rest } from './rest.js'
import { shortConnections } from './short-connections.js'

/** The order matters: `idle` needs programs that have just started, and `failover` leaves links that have just come back. */
export const figures: Figure[] = [
  idle,
  shortConnections,
  cpuPerGb('down'),
  cpuPerGb('up'),
  rest,
  firstByte,
  downloads,
  bulkDown,
  bulkUp,
  failover,
]
