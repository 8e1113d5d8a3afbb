/** Events of the programs: how they begin and end. */
import { info, type Lines, warn } from './line.js'

export interface ServiceEvents {
  'gateway-listens': { readonly port: number; readonly hasIpv6: boolean }
  /** At the start. `reasons`: what each HAG answered, in one line. */
  'no-hag': { readonly reasons: string; readonly onHagDown: 'direct' | 'reject' }
  'gateway-runs': object
  'hag-listens': {
    readonly addresses: readonly string[]
    readonly port: number
    readonly protocol: 'mptcp' | 'tcp'
    readonly authentication: boolean
  }
  /** On one of several addresses; `at`: address and port. */
  'hag-listens-not': { readonly at: string; readonly code: string | undefined }
  'hag-without-mptcp': { readonly code: string | undefined }
  /** The end begins: connections may end for so long. */
  stopping: { readonly seconds: number; readonly connections: number }
  'connections-aborted': { readonly count: number }
  'hag-stopped': object
}

export const serviceLines: Lines<ServiceEvents> = {
  'gateway-listens': ({ port, hasIpv6 }) =>
    info(hasIpv6 ? 'listening' : 'listening, without IPv6: this machine has none', { port }),
  'no-hag': ({ reasons, onHagDown }) => {
    const without = onHagDown === 'reject' ? 'connections are refused (on_hag_down)' : 'connections go direct, without bonding'
    return warn(`no HAG can be reached: ${without}: ${reasons}`)
  },
  'gateway-runs': () => info('gateway runs'),
  'hag-listens': ({ addresses, port, protocol, authentication }) =>
    info('HAG listens', { address: addresses.length === 1 ? addresses[0] : addresses, port, protocol, authentication }),
  'hag-listens-not': ({ at, code }) => warn(`the HAG does not listen on ${at}: ${code}`),
  'hag-without-mptcp': ({ code }) => {
    const mend = code === 'ENOPROTOOPT' ? 'set the sysctl net.mptcp.enabled to 1' : 'use a kernel with CONFIG_MPTCP'
    return warn(`without MPTCP (${code}): gateways reach this HAG, but over one WAN at a time; ${mend}`)
  },
  stopping: ({ seconds, connections }) => info('stopping: connections may end', { seconds, connections }),
  'connections-aborted': ({ count }) => warn(`${count} connections aborted`),
  'hag-stopped': () => info('stopped'),
}
