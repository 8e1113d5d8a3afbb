/** The sysctls of a gateway, with reasons. Those that a kernel lacks are left out. */

import { BondsocksError } from '../../base/errors.js'
import type { GatewayConfig } from '../../config/schema.js'
import { heldOf } from '../kernel/sysctl.js'
import { neededByMptcp } from '../mptcp-settings.js'
import type { Observed, Sysctls } from '../state.js'
import { textOf } from '../step.js'

/**
 * RFC 6182 section 5.3 asks for 2 x sum of bandwidths x largest RTT: 16 MB carry 1 Gbit/s at 64 ms or 500 Mbit/s at 128 ms down, 4 MB a
 * quarter of that up (the sender's buffer also parks what the HAG has not yet taken, so it is kept smaller).
 */
const bufferMaximum = { 'net/ipv4/tcp_rmem': 16 << 20, 'net/ipv4/tcp_wmem': 4 << 20 }
/**
 * All subflows share a connection's first window. The first subflow that sends would take the usual 64 kB, and the others would wait for
 * its acknowledgements. Half of the buffer is window.
 */
const receiveBufferAtFirst = 512 << 10

/**
 * 1: if full-size packets vanish on the path without an ICMP message, a connection tries smaller ones (RFC 4821). The kernel's default is
 * 0; somebody may have set 2, to begin with small ones.
 */
export const mtuProbing = 'net/ipv4/tcp_mtu_probing'
export const wantedProbing = (now: string) => (now === '0' ? '1' : now)

const ipv6Forwarding = 'net/ipv6/conf/all/forwarding'

export function desiredSysctls(config: GatewayConfig, { sysctls, saved, interfaces, mainRoutes }: Observed): Sysctls {
  const wanted = new Map<string, string>()
  const want = (path: string, value: string) => {
    if (sysctls.has(path)) wanted.set(path, value)
  }
  const held = (path: string) => heldOf(path, { sysctls, saved: saved.sysctls })
  /** The value before we changed it. */
  const former = (path: string) => held(path)?.former ?? sysctls.get(path)

  want('net/mptcp/enabled', '1')
  // Judged by the former values, because those that we have corrected look right.
  const before = [...sysctls.keys()].map((path): [string, string] => [path, former(path) ?? ''])
  for (const [path, value] of neededByMptcp(new Map(before))) want(path, value)
  // One WAN that drops MP_CAPABLE would turn MPTCP off on all of them for an hour.
  want('net/mptcp/blackhole_timeout', '0')
  // How long a connection lives after its last subflow was reset (default 60 s): long enough for the other WAN to take over.
  want('net/mptcp/close_timeout', '10')
  for (const [path, minimum] of Object.entries(bufferMaximum)) {
    const [min = '', initial = '', max = ''] = sysctls.get(path)?.split(' ') ?? []
    const first = path.endsWith('rmem') ? Math.max(Number(initial), receiveBufferAtFirst) : initial
    want(path, `${min} ${first} ${Math.max(Number(max), minimum)}`)
  }
  want(mtuProbing, wantedProbing(sysctls.get(mtuProbing) ?? ''))
  // 2 (loose): an answer may come in over a WAN that the main table does not point to. The kernel uses the larger of this and conf/all.
  for (const wan of config.wans) want(`net/ipv4/conf/${wan.interface}/rp_filter`, '2')
  want('net/ipv4/ip_forward', '1')

  const ends = [...config.lan.interfaces, ...config.wans.map((wan) => wan.interface)]
  const hasIpv6 = interfaces.some(
    ({ name, addresses }) => ends.includes(name) && addresses.some((one) => one.family === 6 && one.usable),
  )
  if (!hasIpv6) return wanted
  // A router ignores router advertisements and forgets routes from them unless accept_ra is 2, so set that first. A device without link layer
  // (PPP, many modems) solicits them only when it comes up, so it needs the default's value.
  const advertised = mainRoutes.filter((route) => route.advertised).map(({ device }) => device)
  const listening = [...sysctls.keys()].flatMap((path) => {
    const [, name] = /^net\/ipv6\/conf\/(.+)\/accept_ra$/.exec(path) ?? []
    return name !== undefined && held(path) !== undefined ? [name] : []
  })
  for (const name of new Set(['default', ...config.wans.map((wan) => wan.interface), ...advertised, ...listening])) {
    const path = `net/ipv6/conf/${name}/`
    if (former(`${path}accept_ra`) === '1' && former(`${path}forwarding`) === '0') want(`${path}accept_ra`, '2')
  }
  want(ipv6Forwarding, '1')
  return wanted
}

/** Makes notes of what cannot be set here, for somebody who can. Throws `MPTCP_OFF` if it is indispensable. */
export function withoutFixed(
  wanted: Sysctls,
  { sysctls, fixedSysctls = new Set() }: Observed,
): { sysctls: Sysctls; notes: string[] } {
  const missing = [...wanted].filter(([path, value]) => fixedSysctls.has(path) && sysctls.get(path) !== value)
  if (missing.length === 0) return { sysctls: wanted, notes: [] }
  const set = ([sysctl, value]: [string, string]) => textOf({ sysctl, value })
  const mptcp = missing.find(([path]) => path === 'net/mptcp/enabled')
  if (mptcp !== undefined) {
    throw new BondsocksError('MPTCP_OFF', `MPTCP is switched off, and /proc/sys cannot be written here: ${set(mptcp)}`)
  }
  // A router that no longer listens to router advertisements loses its default route.
  const isDeaf = missing.some(([path]) => path.endsWith('/accept_ra'))
  const isLeft = (path: string) => fixedSysctls.has(path) || (isDeaf && path === ipv6Forwarding)
  const note = `/proc/sys cannot be written here: make it writable, or set from outside: ${missing.map(set).join('; ')}`
  return { sysctls: new Map([...wanted].filter(([path]) => !isLeft(path))), notes: [note] }
}
