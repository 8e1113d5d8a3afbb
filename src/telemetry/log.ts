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

const longestFlushMs = 1000

function standardOutput(): LogSink {
  let flushUntil = Number.POSITIVE_INFINITY
  const sink = pino.destination({
    dest: 1,
    sync: false,
    // What cannot be written now (a full disk, a reader that is gone or stuck) is kept up to here; what comes then is dropped.
    maxLength: 1024 * 1024,
    retryEAGAIN: () => performance.now() < flushUntil,
  })
  // At the exit pino tries until all is written, whatever the error: a full disk or a stuck reader must not keep the program from ending.
  const flush = sink.flushSync.bind(sink)
  let fails = false
  sink.flushSync = () => {
    if (fails) return
    flushUntil = performance.now() + longestFlushMs
    try {
      flush()
    } catch {
      // Nobody is left to be told.
    }
  }
  // A terminal that went away must not end a gateway before it has taken the network set-up away.
  sink.on('error', () => {
    fails = true
  })
  sink.on('write', () => {
    fails = false
  })
  return sink
}
