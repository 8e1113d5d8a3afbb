/** The seam of the network set-up: everything that it asks of the machine. Tests put a model or a network namespace behind it. */
import type { Lease, Sysctls } from '../state.js'

export interface CommandResult {
  /** Exit code; 127 if the program is not installed. */
  code: number
  stdout: string
  stderr: string
}

export interface Kernel {
  /** Runs a command with LC_ALL=C. Never rejects; a failure is in the result. */
  run(argv: readonly string[], input?: string): Promise<CommandResult>
  /** Values by path below /proc/sys; `*` stands for any one folder. Those that the kernel lacks are left out. */
  readSysctls(patterns: readonly string[]): Promise<Sysctls>
  /** Those that cannot be written: containers often have /proc/sys read-only. */
  fixedSysctls(paths: readonly string[]): Promise<ReadonlySet<string>>
  /** Rejects with a system error. */
  writeSysctl(path: string, value: string): Promise<void>
  /** The leases that the system's DHCP clients wrote down; the latest is the last. Never rejects. */
  readLeases(): Promise<Lease[]>
  /** The state file of this network namespace; undefined if there is none. */
  readState(): Promise<string | undefined>
  /** False if the state file's folder is read-only: then the state is kept in memory, and `lock` does not lock. */
  keepsState(): Promise<boolean>
  /** Replaces the state file as a whole; undefined removes it. */
  writeState(text: string | undefined): Promise<void>
  /**
   * Waits until no other process changes this network namespace's set-up. Returns a function that releases the lock; the end of the process
   * does, too. Rejects with `LOCKED` after 10 s, with `NOT_ROOT` or `BAD_FOLDER` at once.
   */
  lock(): Promise<() => void>
  /** True with CAP_NET_ADMIN. */
  mayAdminister(): Promise<boolean>
}
