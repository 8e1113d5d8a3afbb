import type { Fields, Log, LogLevel } from '../../src/telemetry/log.js'

export interface MemoryLog extends Log {
  /** `level message`, without debug lines. */
  readonly lines: string[]
  readonly debugLines: (Fields & { message: string })[]
}

export function memoryLog(level: LogLevel = 'info'): MemoryLog {
  const lines: string[] = []
  const debugLines: MemoryLog['debugLines'] = []
  return {
    lines,
    debugLines,
    error: (message) => lines.push(`error ${message}`),
    warn: (message) => lines.push(`warn ${message}`),
    info: (message) => lines.push(`info ${message}`),
    debug: (message, fields = {}) => debugLines.push({ message, ...fields }),
    debugging: level === 'debug',
  }
}
