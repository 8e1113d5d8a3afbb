/** Defaults that depend on the machine, unlike those in the schema. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { GatewayConfig, HagConfig } from './schema.js'

/** Worker threads and connections at once, where the config leaves them out. */
export function engineLimits(
  config: Partial<Pick<GatewayConfig | HagConfig, 'workers' | 'max_connections' | 'max_connections_per_client'>>,
) {
  const maxConnections = config.max_connections ?? connectionsFor(descriptorLimit(readFileSync('/proc/self/limits', 'utf8')))
  return {
    workers: config.workers ?? Math.min(availableParallelism(), 4),
    maxConnections,
    // Often there is but one client, a HAG's only gateway or a second router behind the gateway, and it may need most of them.
    maxConnectionsPerClient: config.max_connections_per_client ?? Math.ceil((maxConnections * 3) / 4),
  }
}

/** The soft limit of open files in the text of /proc/PID/limits. Node 20 has raised it to the hard limit at its start. */
export function descriptorLimit(limits: string): number {
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1]
  return soft === undefined ? 1024 : soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
}

/**
 * A connection holds two descriptors; a quarter of all stays free for the pipes of those with bytes in flight, and 128 for Node
 * and the listeners. The upper bound is the number of source ports that two WANs have towards one HAG.
 */
export function connectionsFor(descriptors: number): number {
  return Math.max(16, Math.min(65_536, Math.floor(((descriptors - 128) * 3) / 8)))
}
