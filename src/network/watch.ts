/**
 * Tells when the kernel's links, addresses, routes, next hops or rules change: runs `ip monitor`, and starts it again when it dies. Next
 * hops are watched because a route that ends with its next hop is not reported.
 */
import { pause } from '../base/pause.js'
import type { Emit } from '../telemetry/events.js'
import { streamCommand } from './kernel/command.js'

/** If a monitor dies at once, the wait doubles from this to the longest. */
const firstRestartMs = 200
const longestRestartMs = 10_000
/** By then a new monitor reports changes. It may have missed those before. */
const beginsMs = 500
/** A monitor that lived so long worked. */
const soundMs = 5000

export interface WatchEvents {
  /** Called once for every burst of lines, and after each start, because changes may have been missed. */
  onChange(): void
  /** An interface `has no carrier`, `is down`, or `was deleted`; called before `onChange`. */
  onGone(device: string, what: string): void
  /** An address was deleted; called before `onChange`. */
  onAddressGone(address: string): void
}

export interface WatchOptions extends WatchEvents {
  emit: Emit
  /** Tests pass their own. Runs a command, hands over its output, ends it on the signal, and resolves with the reason why it ended. */
  stream?: (argv: readonly string[], onOutput: (text: string) => void, signal: AbortSignal) => Promise<string>
}

/** Runs until the signal. Never rejects. */
export async function watchKernel({ emit, stream = streamCommand, ...events }: WatchOptions, signal: AbortSignal): Promise<void> {
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
    await pause(restartMs, signal)
    // A signal to our whole group or unit ends it a moment before we hear of it.
    if (signal.aborted) return
    // If `ip` is not installed, it is tried for ever.
    if (wasSound || why !== said) emit({ type: 'network-watch-ended', reason: why })
    said = why
    events.onChange()
  }
}

/** `3: dsl@if2: <NO-CARRIER,BROADCAST,UP> mtu ...`, with `Deleted ` in front if it was deleted. */
const linkLine = /^(Deleted )?\d+: ([^\s@]+?)(?:@[^\s:]+)?: <([^>]*)>/
/** `Deleted 3: dsl    inet 10.1.0.2/24 ...` */
const addressGoneLine = /^Deleted \d+: \S+ +inet6? ([0-9a-f.:]+)/
const longestLine = 65_536

/** Reads the output of `ip -o monitor`, in whatever pieces it comes. Other kinds of lines just mean that something changed. */
class MonitorLines {
  readonly #events: WatchEvents
  /** Interfaces without carrier as far as we know, so that only a change is reported. */
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
