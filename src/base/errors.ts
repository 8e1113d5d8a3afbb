/** 1: the machine, the network or a peer did not let us do it. 2: the command line or the config is wrong. */
export type ExitCode = 1 | 2

/**
 * The one error class that users see. Its message is one line that says what happened, to which object, and what to do. `code` is stable;
 * the log names it.
 */
export class BondsocksError extends Error {
  override readonly name = 'BondsocksError'
  readonly code: string
  readonly exitCode: ExitCode

  constructor(code: string, message: string, options: { exitCode?: ExitCode; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.code = code
    this.exitCode = options.exitCode ?? 1
  }
}
