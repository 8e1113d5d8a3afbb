/** Reads the interfaces' counters. */
import { openSync, readSync } from 'node:fs'

export interface Carried {
  /** Bytes since the interface was made. */
  received: number
  sent: number
}

let buffer = Buffer.alloc(64 * 1024)
let file: number | undefined

/** All interfaces of our namespace by name; empty if /proc cannot be read. Takes 0.1 ms, mostly because the data is in no cache. */
export function readCounters(): Map<string, Carried> {
  const carried = new Map<string, Carried>()
  for (const line of readText().split('\n')) {
    const colon = line.indexOf(':')
    if (colon < 0) continue
    const fields = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
    carried.set(line.slice(0, colon).trim(), { received: Number(fields[0]), sent: Number(fields[8]) })
  }
  return carried
}

/**
 * Synchronous, because the kernel makes this text without waiting, and the thread pool costs ten times as much. The file stays open, which
 * halves the cost. One read returns at most a page, some 32 interfaces.
 */
function readText(): string {
  try {
    file ??= openSync('/proc/self/net/dev', 'r')
    let length = 0
    for (;;) {
      const count = readSync(file, buffer, length, buffer.length - length, length)
      if (count === 0) return buffer.toString('latin1', 0, length)
      length += count
      if (length === buffer.length) buffer = Buffer.concat([buffer, Buffer.alloc(length)])
    }
  } catch {
    return ''
  }
}
