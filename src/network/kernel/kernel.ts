/** The one seam of the control path: all that it asks of the machine. Tests put a model or a network namespace behind it. */
import type { Lease, Sysctls } from '../state.js'

export interface CommandResult {
  /** Exit code; 127 where the program is not installed. */
  code: number
  stdout: string
  stderr: string
}

export interface Kernel {
  /** Runs a command with LC_ALL=C. Never rejects: what went wrong is in the result. */
  run(argv: readonly string[], input?: string): Promise<CommandResult>
  /** Values by path below /proc/sys; `*` stands for any one folder. What the kernel lacks is left out. */
  readSysctls(patterns: readonly string[]): Promise<Sysctls>
  /** Those that cannot be written here: containers often have /proc/sys read-only. */
  fixedSysctls(paths: readonly string[]): Promise<ReadonlySet<string>>
  /** Rejects with a system error. */
  writeSysctl(path: string, value: string): Promise<void>
  /** What the system's DHCP clients wrote down, the latest last. Never rejects. */
  readLeases(): Promise<Lease[]>
  /** The state file of this network namespace; undefined where there is none. */
  readState(): Promise<string | undefined>
  /** False where the state file's folder is read-only: then it is kept in memory, and `lock` keeps nobody out. */
  keepsState(): Promise<boolean>
  /** Replaces the state file as a whole; undefined removes it. */
  writeState(text: string | undefined): Promise<void>
  /**
   * Waits until nobody else changes this network namespace's set-up, and returns what ends our turn; so does the end of the process.
   * Rejects with `LOCKED` after 10 s, with `NOT_ROOT` and `BAD_FOLDER` at once.
   */
  lock(): Promise<() => void>
  /** True with CAP_NET_ADMIN. */
  mayAdminister(): Promise<boolean>
}
