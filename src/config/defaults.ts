/** Defaults that depend on the machine, unlike those in the schema. */
import { readFileSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import type { GatewayConfig, HagConfig } from './schema.js'

type LimitKeys = Partial<
  Pick<GatewayConfig | HagConfig, 'workers' | 'max_connections' | 'max_connections_per_client' | 'buffer_memory_mb'>
>

export type EngineLimits = ReturnType<typeof engineLimits>

/** The limits of the engine, with defaults for what the config leaves out. */
export function engineLimits(config: LimitKeys, descriptors = ownDescriptorLimit()) {
  const maxConnections = config.max_connections ?? connectionsFor(descriptors)
  return {
    workers: config.workers ?? Math.min(availableParallelism(), 4),
    maxConnections,
    // Often there is only one client (a HAG's only gateway, or a second router behind the gateway), and it may need most of them.
    maxConnectionsPerClient: config.max_connections_per_client ?? Math.ceil((maxConnections * 3) / 4),
    bufferMemory: config.buffer_memory_mb === undefined ? bufferMemory() : config.buffer_memory_mb * 2 ** 20,
  }
}

/**
 * Half of what TCP may use before the kernel saves memory (net.ipv4.tcp_mem, by default a 16th of the memory): above that, all connections
 * of the machine suffer. Computed from the memory and the control group's bound, because the sysctl cannot be read in a container.
 */
export function bufferMemory(total = totalmem(), bound = process.constrainedMemory()): number {
  return Math.max(2 ** 20, Math.floor((bound > 0 ? Math.min(total, bound) : total) / 32))
}

export interface LimitTexts {
  connections: string
  perClient: string
  descriptors: string
}

/** Each limit as text for the log: its number, and where it comes from. */
export function limitTexts(config: LimitKeys, descriptors = ownDescriptorLimit()): LimitTexts {
  const { maxConnections, maxConnectionsPerClient } = engineLimits(config, descriptors)
  const derived = `as many as ${descriptors} descriptors carry`
  return {
    connections: `${maxConnections} connections (${config.max_connections === undefined ? derived : 'max_connections'})`,
    perClient:
      `${maxConnectionsPerClient} connections ` +
      `(${config.max_connections_per_client === undefined ? `three quarters of all ${maxConnections}; ` : ''}max_connections_per_client)`,
    descriptors: `${descriptors} descriptors`,
  }
}

const ownDescriptorLimit = () => descriptorLimit(readFileSync('/proc/self/limits', 'utf8'))

/** The soft limit of open files in the text of /proc/PID/limits. Node 20 raises it to the hard limit when it starts. */
export function descriptorLimit(limits: string): number {
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1]
  return soft === undefined ? 1024 : soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
}

/**
 * A connection holds two descriptors. A quarter of all stays free for pipes, and 128 for Node and the listeners. The upper bound is the
 * number of source ports that two WANs have towards one HAG.
 */
export function connectionsFor(descriptors: number): number {
  return Math.max(16, Math.min(65_536, Math.floor(((descriptors - 128) * 3) / 8)))
}
