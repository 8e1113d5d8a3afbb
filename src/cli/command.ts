/** What every file in this folder exports as `command`. */
import type { ParseArgsConfig } from 'node:util'
import { BondsocksError } from '../base/errors.js'

/** 0 done, 1 failed, 2 wrong use or wrong config; `status`: 3 nothing runs. */
export type ExitCode = 0 | 1 | 2 | 3

export interface Command {
  /** Printed by `bondsocks NAME --help`: usage, what it does, its options with their defaults. */
  help: string
  /** As for util.parseArgs; every command has `--help`. */
  options?: NonNullable<ParseArgsConfig['options']>
  /** How many operands it takes at most. Default: none. */
  maxOperands?: number
  /** Resolves to the exit code. Errors for people are thrown as BondsocksError. */
  run(values: Values, operands: string[]): Promise<ExitCode>
}

export type Values = Readonly<Record<string, string | boolean | undefined>>

/** The `-c FILE` that most commands take. */
export const configOption = { config: { type: 'string', short: 'c' } } as const satisfies Command['options']

/** The value of `-c`; throws if it is missing. */
export function configFile(values: Values): string {
  if (typeof values.config === 'string' && values.config !== '') return values.config
  throw usageError('which config? Say -c FILE')
}

export function usageError(message: string): BondsocksError {
  return new BondsocksError('USAGE', message, { exitCode: 2 })
}
