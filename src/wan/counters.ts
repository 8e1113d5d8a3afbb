/** What the interfaces have carried so far. */
import { closeSync, openSync, readSync } from 'node:fs'

export interface Carried {
  /** Bytes since the interface was made. */
  received: number
  sent: number
}

const buffer = Buffer.alloc(64 * 1024)

/** All interfaces of our namespace by name; empty where /proc cannot be read. Takes about 20 us. */
export function readCounters(): Map<string, Carried> {
  const carried = new Map<string, Carried>()
  for (const line of readText('/proc/self/net/dev').split('\n')) {
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

/** Synchronous on purpose: the kernel makes this text without waiting for anything, and a thread pool costs ten times as much. */
function readText(path: string): string {
  try {
    const file = openSync(path, 'r')
    try {
      return buffer.toString('latin1', 0, readSync(file, buffer, 0, buffer.length, 0))
    } finally {
      closeSync(file)
    }
  } catch {
    return ''
  }
}
