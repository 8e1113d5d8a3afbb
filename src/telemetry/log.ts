/**
 * The log of the long-running commands: JSON lines on standard output (standard error is for the one line a person needs when a command
 * fails). `info` and above: a line for each change of state; `debug`: a line for each connection.
 */
import pino from 'pino'

export type Fields = Readonly<Record<string, unknown>>

export interface Log {
  error(message: string, fields?: Fields): void
  warn(message: string, fields?: Fields): void
  info(message: string, fields?: Fields): void
  debug(message: string, fields?: Fields): void
  /** False if debug lines are dropped, so that callers need not keep what only those lines say. */
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
    // Lines that cannot be written now (full disk, reader gone or stuck) are kept up to so many bytes; later ones are dropped.
    maxLength: 1024 * 1024,
    retryEAGAIN: () => performance.now() < flushUntil,
  })
  // At exit pino tries until all is written, whatever the error. But a full disk or a stuck reader must not keep the program from ending.
  const flush = sink.flushSync.bind(sink)
  let fails = false
  sink.flushSync = () => {
    if (fails) return
    flushUntil = performance.now() + longestFlushMs
    try {
      flush()
    } catch {
      // There is nobody to tell.
    }
  }
  // If the terminal goes away, the gateway must not end before it has removed the network set-up.
  sink.on('error', () => {
    fails = true
  })
  sink.on('write', () => {
    fails = false
  })
  return sink
}
