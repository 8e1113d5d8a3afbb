/**
 * The log of the long-running commands: JSON lines on standard output (standard error is for the one line a person needs when a
 * command fails). `info` and above: one line a change of state; `debug`: one line a connection.
 */
import pino from 'pino'

export type Fields = Readonly<Record<string, unknown>>

export interface Log {
  error(message: string, fields?: Fields): void
  warn(message: string, fields?: Fields): void
  info(message: string, fields?: Fields): void
  debug(message: string, fields?: Fields): void
  /** False where debug lines go nowhere, so that callers need not keep what only they need. */
  readonly debugging: boolean
}

export type LogLevel = 'error' | 'warn' | 'info' | 'debug'

export interface LogSink {
  write(line: string): void
}

export function createLog(level: LogLevel, sink: LogSink = standardOutput()): Log {
  const logger = pino(
    {
      level,
      base: null,
      messageKey: 'message',
      formatters: { level: (label) => ({ level: label }) },
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    sink,
  )
  return {
    error: (message, fields = {}) => logger.error(fields, message),
    warn: (message, fields = {}) => logger.warn(fields, message),
    info: (message, fields = {}) => logger.info(fields, message),
    debug: (message, fields = {}) => logger.debug(fields, message),
    debugging: level === 'debug',
  }
}

function standardOutput(): LogSink {
  const sink = pino.destination({ dest: 1, sync: false })
  // A terminal that went away must not end a gateway before it has taken the network set-up away.
  sink.on('error', () => undefined)
  return sink
}
