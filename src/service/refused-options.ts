/** Socket options that the kernel does not take on MPTCP sockets, or not from this user: logs once what one would notice. */

import { pause } from '../base/pause.js'
import type { Native } from '../engine/contract.js'
import type { Log } from '../telemetry/log.js'

const lookMs = 10_000

/** What one notices if an option is missing. The lack of others is not noticed. */
const consequences: Record<string, string> = {
  IP_BIND_ADDRESS_NO_PORT:
    'a WAN carries at most as many connections at once as net.ipv4.ip_local_port_range has ports, to all HAGs together',
  SO_KEEPALIVE: 'what idles behind a NAT may die unnoticed',
  TCP_KEEPIDLE: 'what idles behind a NAT may die unnoticed',
  SO_OOBINLINE: "urgent data, as FTP's abort sends it, may be lost",
  SO_RCVBUFFORCE: 'a fast WAN with a long round trip is not filled by a single download',
  SO_RCVLOWAT: 'a fast WAN with a long round trip is not filled by a single download',
  SO_SNDBUFFORCE: 'a slower second WAN is not filled by a single upload',
  TCP_NODELAY: 'small messages may wait for an acknowledgement',
}

/** Texts about options that were not reported yet; adds them to `told`. */
export function newsOfOptions(refused: ReturnType<Native['refusedOptions']>, told: Set<string>): string[] {
  return refused.flatMap(({ option, code }) => {
    const consequence = consequences[option]
    if (consequence === undefined || told.has(consequence)) return []
    told.add(consequence)
    const why = code === 'EPERM' ? 'needs CAP_NET_ADMIN' : `is not taken by this kernel (${code})`
    return [`the socket option ${option} ${why}: ${consequence}`]
  })
}

/** Runs until the signal. Never rejects. */
export async function watchOptions(
  native: Pick<Native, 'refusedOptions'>,
  log: Log,
  signal: AbortSignal,
  everyMs = lookMs,
): Promise<void> {
  const told = new Set<string>()
  while (!signal.aborted) {
    await pause(everyMs, signal)
    for (const text of newsOfOptions(native.refusedOptions(), told)) log.info(text)
  }
}
