/** The kernel's MPTCP events, as `ip mptcp monitor` prints them (mptcp_pm_events in linux/mptcp.h). */
import { formatSocketAddress } from '../base/address.js'

export interface KernelEvent {
  /** `created`, `established`, `sf_established` ... */
  type: string
  /** The WAN whose address is our end of the subflow. */
  wan?: string
  local?: string
  remote?: string
  /** All that was printed. */
  fields: Readonly<Record<string, string>>
}

/** Reset reasons (RFC 8684 section 3.6). */
const resetReasons = [
  'unspecified',
  'MPTCP-specific error',
  'lack of resources',
  'administratively prohibited',
  'too much outstanding data',
  'unacceptable performance',
  'middlebox interference',
]

/** Undefined for a line that is none. */
export function parseKernelEvent(line: string, wanOf: (address: string) => string | undefined): KernelEvent | undefined {
  const [, name, rest = ''] = /^\[\s*([A-Z_]+)\]\s*(.*)$/.exec(line) ?? []
  if (name === undefined) return undefined
  const fields = Object.fromEntries(rest.split(/\s+/).flatMap((word) => (word.includes('=') ? [word.split('=', 2)] : [])))
  const event: KernelEvent = { type: name.toLowerCase(), fields }
  const address = fields.saddr4 ?? fields.saddr6
  const end = (at: string | undefined, port: string | undefined) => at && formatSocketAddress({ address: at, port: Number(port) })
  const [local, remote] = [end(address, fields.sport), end(fields.daddr4 ?? fields.daddr6, fields.dport)]
  if (local !== undefined) event.local = local
  if (remote !== undefined) event.remote = remote
  const wan = address === undefined ? undefined : wanOf(address)
  if (wan !== undefined) event.wan = wan
  return event
}

export function kernelText({ type, wan, local, remote, fields }: KernelEvent): string {
  const { token, error, reset_reason: reason, backup } = fields
  const words = [
    `kernel: ${type.replaceAll('_', ' ')}`,
    ...(wan === undefined ? [] : [`over ${wan}`]),
    ...(local === undefined ? [] : [`${local} -> ${remote}`]),
    ...(backup === undefined || backup === '0' ? [] : ['as backup']),
    ...(error === undefined || error === '0' ? [] : [`error ${error}`]),
    ...(reason === undefined ? [] : [`reset: ${resetReasons[Number(reason)] ?? reason}`]),
    ...(token === undefined ? [] : [`token ${token}`]),
  ]
  return words.join(' ')
}
