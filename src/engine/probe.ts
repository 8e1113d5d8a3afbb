import type { SocketAddress } from '../base/address.js'
import type { Probe } from './contract.js'

export interface Credentials {
  username?: string
  password?: string
}

/** A HAG, and the WAN's address from which to ask it. */
export interface Target {
  hag: SocketAddress & Credentials
  bind: string
}

/** Those that are set. */
export function credentialsOf({ username, password }: { [Key in keyof Credentials]: Credentials[Key] | undefined }): Credentials {
  const credentials: Credentials = {}
  if (username !== undefined) credentials.username = username
  if (password !== undefined) credentials.password = password
  return credentials
}

/** A probe of a HAG, with its credentials if it has some. */
export function hagProbe({ hag, bind }: Target, how: Pick<Probe, 'protocol' | 'connectTimeoutMs' | 'timeoutMs'>): Probe {
  const { address, port } = hag
  return { ...how, remote: { address, port }, bind, ...credentialsOf(hag) }
}
