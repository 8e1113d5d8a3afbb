/**
 * Tells when the kernel's links, addresses, routes, next hops or rules change: a long-lived `ip monitor`, started again when it dies. A next
 * hop's end is that of its routes, of which the kernel says nothing.
 */
import { pause } from '../base/pause.js'
import type { Log } from '../telemetry/log.js'
import { streamCommand } from './kernel/command.js'

/** After a monitor that died at once: the wait doubles from here to the longest. */
const firstRestartMs = 200
const longestRestartMs = 10_000
/** By then a monitor that was started hears what changes; what changed before it may not have. */
const beginsMs = 500
/** A monitor that lived this long was a good one. */
const soundMs = 5000

export interface WatchEvents {
  /** Called once for every burst of lines, and after each start, because changes may have gone by unseen. */
  onChange(): void
  /** An interface `has no carrier`, `is down`, or `was deleted`; called before `onChange`. */
  onGone(device: string, what: string): void
  /** An address was deleted; called before `onChange`. */
  onAddressGone(address: string): void
}

export interface WatchOptions extends WatchEvents {
  log: Log
  /** Tests pass their own: runs a command, hands over what it prints, ends it on the signal, resolves with why it ended. */
  stream?: (argv: readonly string[], onOutput: (text: string) => void, signal: AbortSignal) => Promise<string>
}

/** Runs until the signal. Never rejects. */
export async function watchKernel({ log, stream = streamCommand, ...events }: WatchOptions, signal: AbortSignal): Promise<void> {
  let restartMs = firstRestartMs
  let said = ''
  while (!signal.aborted) {
    const startedAt = performance.now()
    const lines = new MonitorLines(events)
    const listens = setTimeout(() => events.onChange(), beginsMs)
    const why = await stream(
      ['ip', '-o', 'monitor', 'link', 'address', 'route', 'nexthop', 'rule'],
      (text) => lines.add(text),
      signal,
    )
    clearTimeout(listens)
    if (signal.aborted) return
    const wasSound = performance.now() - startedAt >= soundMs
    restartMs = wasSound ? firstRestartMs : Math.min(restartMs * 2, longestRestartMs)
    // Where `ip` is not installed it is tried for ever.
    if (wasSound || why !== said)
      log.warn(`the watch on the network ended and is started again: ${why}`, { milliseconds: restartMs })
    said = why
    await pause(restartMs, signal)
    events.onChange()
  }
}

/** `3: dsl@if2: <NO-CARRIER,BROADCAST,UP> mtu ...`, with `Deleted ` in front where it has gone. */
const linkLine = /^(Deleted )?\d+: ([^\s@]+?)(?:@[^\s:]+)?: <([^>]*)>/
/** `Deleted 3: dsl    inet 10.1.0.2/24 ...` */
const addressGoneLine = /^Deleted \d+: \S+ +inet6? ([0-9a-f.:]+)/
const longestLine = 65_536

/** What `ip -o monitor` prints, in whatever pieces it comes. Lines of other kinds are changes, and nothing more. */
class MonitorLines {
  readonly #events: WatchEvents
  /** Interfaces that have no carrier as far as we know: only the change is told. */
  readonly #gone = new Set<string>()
  #rest = ''

  constructor(events: WatchEvents) {
    this.#events = events
  }

  add(text: string): void {
    const lines = `${this.#rest}${text}`.split('\n')
    this.#rest = (lines.pop() ?? '').slice(0, longestLine)
    for (const line of lines) this.#read(line)
    this.#events.onChange()
  }

  #read(line: string): void {
    const address = addressGoneLine.exec(line)?.[1]
    if (address !== undefined) this.#events.onAddressGone(address)
    const [, deleted, device, flagText] = linkLine.exec(line) ?? []
    if (device === undefined || flagText === undefined) return
    const flags = flagText.split(',')
    const isGone = deleted !== undefined || !flags.includes('UP') || !flags.includes('LOWER_UP') || flags.includes('NO-CARRIER')
    const wasGone = this.#gone.has(device)
    if (!isGone || deleted !== undefined) this.#gone.delete(device)
    else this.#gone.add(device)
    const what = deleted !== undefined ? 'was deleted' : flags.includes('UP') ? 'has no carrier' : 'is down'
    if (isGone && !wasGone) this.#events.onGone(device, what)
  }
}
