/** A port that cannot be listened on, and limits that are reached. */

import { BondsocksError } from '../base/errors.js'
import type { LimitTexts } from '../config/defaults.js'
import type { EngineEvent } from '../engine/contract.js'
import type { Event } from '../telemetry/events.js'

/** The error for a failed `listen`, for the person who wrote the config. */
export function listenError(address: string, port: number, cause: unknown): BondsocksError {
  const { code = String(cause) } = cause as NodeJS.ErrnoException
  const what =
    {
      EADDRINUSE: `port ${port} is taken by another program: \`ss -ltnp 'sport = :${port}'\` shows it; stop it, or choose another listen.port`,
      EACCES: `port ${port} is not allowed: run as root, or choose a listen.port above 1023`,
      EADDRNOTAVAIL: `${address} is no address of this machine: choose another listen.address (0.0.0.0 and '::' are all)`,
    }[code] ?? `cannot listen on ${address} port ${port}: ${code}`
  return new BondsocksError('LISTEN', what, { cause })
}

/** What the engine says of a limit, for people. */
export function limitEvent({ limited, cause }: Extract<EngineEvent, { type: 'limit' }>, limits: LimitTexts): Event {
  const { connections, descriptors } = limits
  const limit = { connections, descriptors, memory: '', pipes: descriptors }[cause]
  return { type: 'limit', cause, isReached: limited, limit }
}
