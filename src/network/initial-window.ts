/**
 * A HAG's answers begin with more than the ten segments of RFC 6928, because slow start takes a round trip of every WAN for each doubling:
 * a table with the routes of the main one, and the window as their metric, for what leaves the HAG's port. Nobody else's route changes.
 */
import { pause } from '../shared/pause.js'
import type { Log } from '../telemetry/log.js'
import { runCommand } from './command.js'
import type { CommandResult } from './kernel.js'
import { owned } from './state.js'
import { type WatchEvents, watchKernel } from './watch.js'

/** Table and rule priority, behind those of a gateway's WANs. */
const place = String(owned.base + owned.count)
const families = ['-4', '-6'] as const
/** Changes come in bursts. */
const settleMs = 200

type Run = (argv: readonly string[], input?: string) => Promise<CommandResult>

export interface InitialWindowOptions {
  /** The HAG's. */
  port: number
  /** Segments. */
  segments: number
  log: Log
  /** Tests pass their own. */
  run?: Run
  watch?: (events: WatchEvents, signal: AbortSignal) => Promise<void>
}

/** Follows the main table until the signal, then takes all away. Never rejects: where it cannot be done the kernel's window stays, and that is said. */
export async function keepInitialWindow(options: InitialWindowOptions, signal: AbortSignal): Promise<void> {
  const { port, segments, log, run = runCommand } = options
  const watch = options.watch ?? ((events, until) => watchKernel({ ...events, log }, until))
  const rule = ['pref', place, 'ipproto', 'tcp', 'sport', String(port), 'lookup', place]
  let copied = ''
  /** Why it could not be done. */
  const copy = async (): Promise<string | undefined> => {
    const tables = await Promise.all(families.map((family) => run(['ip', family, '-o', 'route', 'show', 'table', 'main'])))
    const failed = tables.find(({ code }) => code !== 0)
    if (failed !== undefined) return failed.stderr
    const now = tables.map(({ stdout }) => stdout).join('\n')
    if (now === copied) return undefined
    copied = now
    let trouble: string | undefined
    for (const [index, family] of families.entries()) {
      await run(['ip', family, 'route', 'flush', 'table', place])
      // Not `add`: every link has a route of its own to fe80::/64.
      const lines = tables[index]?.stdout.split('\n').filter((line) => line.trim() !== '') ?? []
      const batch = lines.map((line) => `route append ${copyOf(line, segments)} table ${place}\n`).join('')
      const added = await run(['ip', family, '-batch', '-'], batch)
      if (added.code === 0) continue
      // Half a table would lead astray; with none the main one counts.
      await run(['ip', family, 'route', 'flush', 'table', place])
      trouble = added.stderr
    }
    return trouble
  }
  const remove = async () => {
    for (const family of families) await run(['ip', family, 'rule', 'del', ...rule])
    for (const family of families) await run(['ip', family, 'route', 'flush', 'table', place])
  }

  let said = ''
  const say = (trouble = '') => {
    if (trouble !== '' && trouble !== said) log.info(`answers begin with the kernel's initial window: ${oneLine(trouble)}`)
    said = trouble
  }
  let wake = new AbortController()
  const changed = () => wake.abort()
  const watching = watch({ onChange: changed, onGone: changed, onAddressGone: changed }, signal)
  // After a kill there may be an old one.
  await remove()
  let trouble = await copy()
  for (const family of families) {
    const { code, stderr } = await run(['ip', family, 'rule', 'add', ...rule])
    if (code !== 0) trouble ??= stderr
  }
  say(trouble)
  while (!signal.aborted) {
    await pause(2 ** 30, signal, wake.signal)
    wake = new AbortController()
    await pause(settleMs, signal)
    if (!signal.aborted) say(await copy())
  }
  await watching
  await remove()
}

/** Takes away what a killed HAG has left, whatever its port was. */
export async function removeInitialWindow(run: Run = runCommand): Promise<void> {
  for (const family of families) {
    // One rule a call, until there is none.
    for (let left = 16; left > 0 && (await run(['ip', family, 'rule', 'del', 'pref', place])).code === 0; left--);
    await run(['ip', family, 'route', 'flush', 'table', place])
  }
}

/** A line of `ip route show` as words for `ip route append`. */
function copyOf(line: string, segments: number): string {
  const words = line
    // States, which the kernel adds by itself.
    .replace(/ (linkdown|dead|offload|trap|rt_offload|rt_trap|offload_failed)\b/g, '')
    .replace(/ (expires|error) \S+/g, '')
    .trim()
  return /\binitcwnd\b/.test(words) ? words : `${words} initcwnd ${segments}`
}

const oneLine = (text: string) => text.trim().replace(/\s*\n\s*/g, '; ')
