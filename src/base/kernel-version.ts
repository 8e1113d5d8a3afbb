/** What depends on the kernel's version and cannot be found out otherwise. */
import { release } from 'node:os'

/** What all texts ask for. Older kernels may work, but are not tested (scripts/test-kernel). */
export const mptcpKernel = 'Linux 6.1 or later, built with CONFIG_MPTCP'

/**
 * Whether joining subflows leave by their endpoints' devices if the socket is bound to a device. Before Linux 6.7 they took the first
 * subflow's, because the socket's options were copied to a new subflow after its device was set (commit a1ab24e5fc4a, "mptcp: consolidate
 * sockopt synchronization").
 */
export function joinsByOwnDevice(version: string = release()): boolean {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10))
  return major > 6 || (major === 6 && minor >= 7)
}
