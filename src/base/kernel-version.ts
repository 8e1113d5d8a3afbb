/** What depends on the kernel's version, and cannot be seen in another way. */
import { release } from 'node:os'

/** What every text promises: older kernels may work, and nobody tries them (scripts/test-kernel). */
export const mptcpKernel = 'Linux 6.1 or later, built with CONFIG_MPTCP'

/**
 * A socket that is bound to a device: do MPTCP's other subflows leave by their endpoints' devices all the same? Before Linux 6.7 they took
 * the first one's, because a new subflow's options were copied after its device was set (a1ab24e5fc4a, "mptcp: consolidate sockopt
 * synchronization").
 */
export function joinsByOwnDevice(version: string = release()): boolean {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10))
  return major > 6 || (major === 6 && minor >= 7)
}
