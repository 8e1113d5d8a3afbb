/** What every text promises: older kernels may work, and nobody tries them (scripts/test-kernel). */
export const mptcpKernel = 'Linux 6.1 or later, built with CONFIG_MPTCP'
