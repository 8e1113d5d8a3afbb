/** What `status` says of gateway and HAG alike. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { release } from 'node:os'
import { tenths } from '../base/tenths.js'
import { version } from '../base/version.js'
import { descriptorLimit, type EngineLimits } from '../config/defaults.js'
import type { ConnectionStatus, ServiceStatus } from '../control/status.js'
import type { Engine, Inspection } from '../engine/contract.js'
import type { LimitTally } from './limit-tally.js'

/** For `status`: joins have had their time; of very many connections a part tells enough, and the answer does not take long. */
export const inspected = { max: 250, olderThanMs: 2000, minBytes: 0 }
export const maxBusiest = 10

export function serviceStatus(
  engine: Pick<Engine, 'stats'>,
  limits: EngineLimits,
  tally: Pick<LimitTally, 'read'>,
): ServiceStatus {
  const { reached, refused } = tally.read()
  const { connections, relaying, pipesInUse, pipesPooled, bytesParked } = engine.stats()
  return {
    version: version(),
    kernel: release(),
    pid: process.pid,
    uptime_seconds: tenths(process.uptime()),
    memory: memory(),
    descriptors: descriptors(),
    connections: {
      open: connections,
      relaying,
      limit: limits.maxConnections,
      limit_per_client: limits.maxConnectionsPerClient,
    },
    pipes: { in_use: pipesInUse, pooled: pipesPooled, parked_bytes: bytesParked },
    limits_reached: reached,
    refused,
    buffer_memory_bytes: limits.bufferMemory,
  }
}

function memory(): ServiceStatus['memory'] {
  const rollup = textOf('/proc/self/smaps_rollup')
  const kibibytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0) * 1024
  const resident = { resident_bytes: process.memoryUsage.rss() }
  return rollup === '' ? resident : { ...resident, private_bytes: kibibytes('Private_Clean') + kibibytes('Private_Dirty') }
}

function descriptors(): ServiceStatus['descriptors'] {
  const limit = descriptorLimit(textOf('/proc/self/limits'))
  let open = 0
  try {
    // From Linux 6.2 on the size is their number (commit f1f1f2569901).
    open = statSync('/proc/self/fd').size || readdirSync('/proc/self/fd').length
  } catch {
    // None is free, or there is no /proc.
  }
  return Number.isFinite(limit) ? { open, limit } : { open }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** `wanOf`: the WAN that has this address; a HAG knows none. */
export function connectionOf(
  one: Inspection,
  wanOf: (address: string) => string | undefined = () => undefined,
): ConnectionStatus {
  const { client, remote, protocol, ageMs, sent, received, subflows } = one
  const status: ConnectionStatus = {
    client,
    remote,
    age_seconds: ageMs / 1000,
    sent_bytes: sent,
    received_bytes: received,
    subflows: subflows.map(({ local, remote, joining, rttUs, bytesSent, bytesReceived, packetsSent, packetsSentAgain }) => {
      const subflow: ConnectionStatus['subflows'][number] = {
        local,
        remote,
        joining,
        rtt_ms: tenths(rttUs / 1000),
        sent_bytes: bytesSent,
        received_bytes: bytesReceived,
        packets_sent: packetsSent,
        packets_sent_again: packetsSentAgain,
      }
      const wan = wanOf(local.address)
      if (wan !== undefined) subflow.wan = wan
      return subflow
    }),
  }
  if (protocol !== undefined) status.protocol = protocol
  return status
}
