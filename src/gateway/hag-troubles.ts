/** Texts for people about what is wrong with a HAG. */
import type { ProbeResult } from '../engine/contract.js'
import type { Hag, PathAddress } from './model.js'

/** With the address, which people compare with the HAG's rules. */
export const whereOf = ({ wan, bind }: PathAddress) => `${wan}, from ${bind}`

/** Why a HAG does not serve an address of ours. */
export const turnedAwayBecause = {
  stranger: 'our address is not in its `clients`: add it there, or behind a NAT the one that its log refuses',
  closes: 'it closes the connection without an answer, but not over another WAN: let its rules allow this address',
}

/** Why a probe failed. */
export function troubleOf(hag: Hag, { stage, failure }: Extract<ProbeResult, { ok: false }>): string {
  // ICMPv6 "administratively prohibited". After the handshake, EACCES means that the HAG refuses.
  if (stage === 'connect' && failure.code === 'EACCES') return 'a firewall prohibits it'
  const known: Record<string, string> = {
    EACCES:
      hag.username === undefined
        ? 'it asks for a user name and password: set username and password_file'
        : 'it refuses the user name or password',
    NOT_A_CLIENT: turnedAwayBecause.stranger,
    ETIMEDOUT: stage === 'connect' ? 'no answer' : 'connected, but it does not answer',
    ECONNREFUSED: 'connection refused, nothing listens there',
    ENETUNREACH: 'no route to it',
    EHOSTUNREACH: 'no route to it',
    EADDRNOTAVAIL: 'the WAN has lost its address',
    ECONNRESET: stage === 'connect' ? 'it closed the connection' : 'it closed the connection without an answer',
    EPROTO: 'it does not speak SOCKS5',
  }
  return known[failure.code] ?? `${failure.code} in ${failure.syscall}`
}
