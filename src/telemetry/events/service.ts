/** Events of the programs: how they begin and end. */
import { error, info, type Lines, warn } from './line.js'

/** What one notices if the kernel does not take a socket option. */
export type OptionEffect = 'few-ports' | 'idle-dies' | 'urgent-lost' | 'slow-download' | 'slow-upload' | 'small-waits'

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
  /** The control socket cannot be made. */
  'control-failed': { readonly reason: string }
  /** The end begins: connections may end for so long. */
  stopping: { readonly seconds: number; readonly connections: number }
  'connections-aborted': { readonly count: number }
  'hag-stopped': object
  /** SIGHUP came. */
  'hangup-ignored': object
  /** `code`: the kernel's error. */
  'option-refused': { readonly option: string; readonly code: string; readonly effect: OptionEffect }
  /** Others can read a file with secrets; `key`: the config's. */
  'secret-exposed': { readonly key: string; readonly file: string }
  /** A changed file of users: the users in it count now, or the former ones still. */
  'users-read': { readonly file: string; readonly users: number }
  'users-kept': { readonly reason: string }
  /** Until the kernel tells which addresses are this machine's. */
  'destinations-refused': { readonly reason: string }
}

const effects: Record<OptionEffect, string> = {
  'few-ports':
    'a WAN carries at most as many connections at once as net.ipv4.ip_local_port_range has ports, to all HAGs together',
  'idle-dies': 'what idles behind a NAT may die unnoticed',
  'urgent-lost': "urgent data, as FTP's abort sends it, may be lost",
  'slow-download': 'a fast WAN with a long round trip is not filled by a single download',
  'slow-upload': 'a slower second WAN is not filled by a single upload',
  'small-waits': 'small messages may wait for an acknowledgement',
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
  'control-failed': ({ reason }) => info(`there is no control socket for \`bondsocks status\`: ${reason}`),
  stopping: ({ seconds, connections }) => info('stopping: connections may end', { seconds, connections }),
  'connections-aborted': ({ count }) => warn(`${count} connections aborted`),
  'hag-stopped': () => info('stopped'),
  'hangup-ignored': () => info('SIGHUP is ignored: SIGTERM stops'),
  'option-refused': ({ option, code, effect }) => {
    const why = code === 'EPERM' ? 'needs CAP_NET_ADMIN' : `is not taken by this kernel (${code})`
    return info(`the socket option ${option} ${why}: ${effects[effect]}`)
  },
  'secret-exposed': ({ key, file }) => warn(`${key} ${file} can be read by others: chmod 600 ${file}`),
  'users-read': ({ file, users }) => info(`users_file ${file} read again: ${users} users`),
  'users-kept': ({ reason }) => warn(`${reason}; the former users stay`),
  'destinations-refused': ({ reason }) => error(`destinations are refused: ${reason}`),
}
