/** Texts about a port that cannot be listened on, and about limits that are reached. */

import { BondsocksError } from '../base/errors.js'
import type { LimitTexts } from '../config/defaults.js'
import type { EngineEvent } from '../engine/contract.js'
import type { Log } from '../telemetry/log.js'

/** The error for a failed `listen`, for the person who wrote the config. */
export function listenError(address: string, port: number, cause: unknown): BondsocksError {
  const { code = String(cause) } = cause as NodeJS.ErrnoException
  const what =
    {
      EADDRINUSE: `port ${port} is taken by another program: \`ss -ltnp 'sport = :${port}'\` shows it; stop it, or choose another listen.port`,
      EACCES: `port ${port} is not allowed: run as root, or choose a listen.port above 1023`,
      EADDRNOTAVAIL: `${address} is no address of this machine: choose another listen.address`,
    }[code] ?? `cannot listen on ${address} port ${port}: ${code}`
  return new BondsocksError('LISTEN', what, { cause })
}

const raiseLimit = 'raise the limit: `ulimit -n`, LimitNOFILE='

export function logLimit({ limited, cause }: Extract<EngineEvent, { type: 'limit' }>, limits: LimitTexts, log: Log): void {
  const texts: Record<typeof cause, string> = {
    connections: `accepting pauses: there are ${limits.connections}`,
    descriptors: `accepting pauses: none of ${limits.descriptors} is left (${raiseLimit})`,
    memory: 'accepting pauses: the kernel has no memory left for sockets (see net.ipv4.tcp_mem)',
    pipes: `some connections take more processor time: ${limits.descriptors} are too few for their pipes (${raiseLimit})`,
  }
  if (limited) log.warn(texts[cause], { cause })
  else log.info('accepting goes on', { cause })
}
