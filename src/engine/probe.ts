import type { SocketAddress } from '../base/address.js'
import type { Probe } from './contract.js'

/** A HAG, and the WAN's address from which to ask it. */
export interface Target {
  hag: SocketAddress & { username?: string; password?: string }
  bind: string
}

/** A probe of a HAG, with its credentials if it has some. */
export function hagProbe({ hag, bind }: Target, how: Pick<Probe, 'protocol' | 'connectTimeoutMs' | 'timeoutMs'>): Probe {
  const { address, port, username, password } = hag
  return {
    ...how,
    remote: { address, port },
    bind,
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
  }
}
