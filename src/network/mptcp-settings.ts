/** Settings of the kernel that would switch the bundle off or cripple it. */
import type { Emit } from '../telemetry/events.js'
import type { Kernel } from './kernel/kernel.js'
import { parseEndpoints } from './kernel/mptcp.js'
import type { Sysctls } from './state.js'
import { sysctlName } from './step.js'

/** Their names in kernels from 5.15 to 7.x. */
export const mptcpSysctls = [
  'net/mptcp/enabled',
  'net/mptcp/path_manager',
  'net/mptcp/pm_type',
  'net/mptcp/scheduler',
  'net/mptcp/stale_loss_cnt',
  'net/mptcp/syn_retrans_before_tcp_fallback',
  'net/mptcp/checksum_enabled',
  'net/mptcp/allow_join_initial_addr_port',
  'net/ipv4/tcp_shrink_window',
  'net/ipv4/tcp_window_scaling',
  'net/ipv4/tcp_sack',
]

interface Wish {
  path: string
  value: string
  why: string
}

/** The settings that are not as MPTCP needs them, with the right values. */
function wishes(sysctls: Sysctls): Wish[] {
  const found: Wish[] = []
  const want = (path: string, value: string, why: string, isFit = (now: string) => now === value) => {
    const now = sysctls.get(path)
    if (now !== undefined && !isFit(now)) found.push({ path, value, why })
  }
  const within = (min: number, max: number) => (now: string) => Number(now) >= min && Number(now) <= max
  // path_manager (6.15) is the new name of pm_type (5.19), which follows it.
  const manager = 'a path manager outside the kernel must do what endpoints do, and without one nothing joins a connection'
  if (sysctls.has('net/mptcp/path_manager')) want('net/mptcp/path_manager', 'kernel', manager)
  else want('net/mptcp/pm_type', '0', manager)
  want('net/mptcp/scheduler', 'default', 'another scheduler may leave WANs unused')
  want('net/mptcp/stale_loss_cnt', '4', 'a WAN that has stopped goes on being sent to', within(1, 16))
  want(
    'net/mptcp/syn_retrans_before_tcp_fallback',
    '2',
    'a lost packet makes a connection plain TCP, or a path that drops MPTCP is tried for too long',
    within(1, 4),
  )
  want('net/ipv4/tcp_shrink_window', '0', 'MPTCP transfers come to a stand')
  want('net/ipv4/tcp_window_scaling', '1', 'a WAN carries 64 kB a round trip at most')
  return found
}

/** What a gateway sets, and puts back at its end. */
export function neededByMptcp(sysctls: Sysctls): ReadonlyMap<string, string> {
  return new Map(wishes(sysctls).map(({ path, value }) => [path, value]))
}

/** Remarks on what the owner has to decide. */
export function remarksOnSettings(sysctls: Sysctls): string[] {
  const remarks: string[] = []
  if (sysctls.get('net/mptcp/checksum_enabled') === '1')
    remarks.push('net.mptcp.checksum_enabled is 1: every byte is summed up once more, which takes processor time')
  if (sysctls.get('net/ipv4/tcp_sack') === '0')
    remarks.push('net.ipv4.tcp_sack is 0: what a WAN loses takes much longer to be sent again; sysctl -w net.ipv4.tcp_sack=1')
  return remarks
}

/** On a HAG, whose machine serves others, too: says what its owner should change. Never rejects. */
export async function complainOfSettings({ kernel, emit }: { kernel: Kernel; emit: Emit }): Promise<void> {
  const sysctls = await kernel.readSysctls(mptcpSysctls).catch((): Sysctls => new Map())
  for (const { path, value, why } of wishes(sysctls)) {
    const name = sysctlName(path)
    emit({ type: 'network-note', note: `${name} is ${sysctls.get(path)}: ${why}; sysctl -w ${name}=${value}` })
  }
  for (const note of remarksOnSettings(sysctls)) emit({ type: 'network-note', note })
  if (sysctls.get('net/mptcp/allow_join_initial_addr_port') !== '0') return
  const { code, stdout } = await kernel.run(['ip', '-j', 'mptcp', 'endpoint', 'show'])
  // Behind a load balancer this is right.
  if (code === 0 && signals(stdout)) return
  const note =
    'net.mptcp.allow_join_initial_addr_port is 0, and no endpoint signals another address: gateways use one WAN for each connection; ' +
    'sysctl -w net.mptcp.allow_join_initial_addr_port=1'
  emit({ type: 'network-note', note })
}

function signals(json: string): boolean {
  try {
    return parseEndpoints(json).some(({ flags }) => flags.includes('signal'))
  } catch {
    return false
  }
}
