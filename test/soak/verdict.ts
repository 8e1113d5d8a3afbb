/** Which requests failed although nothing excuses it, and what was seen of them. */
import type { Program } from '../support/process.js'
import type { Window } from './chaos.js'
import type { Outcome } from './load.js'

export function judge(
  outcomes: readonly Outcome[],
  windows: readonly Window[],
  begun: number,
  programs: Record<string, readonly Program[]>,
) {
  const rows = new Map<string, { begun: number; excused: number; failed: number }>()
  const violations: string[] = []
  const byWindow: Record<string, number> = {}
  for (const outcome of outcomes) {
    const { kind, id, begun: since, ended, error } = outcome
    const row = rows.get(kind) ?? { begun: 0, excused: 0, failed: 0 }
    rows.set(kind, row)
    row.begun += 1
    if (error === undefined) continue
    // A connection that began while no HAG answered has one WAN only. It ends with that WAN, whenever it notices.
    const mayBeDirect = windows.some(({ isDirect, from, until }) => isDirect && since >= from && since <= until)
    const window = windows.find(({ from, until }) => ended >= from && (ended <= until || (mayBeDirect && since < from)))
    // A connection may be reset. Wrong bytes are never excused, nor is a client that was left waiting.
    const isReset = /^(ECONN|EPIPE|ETIMEDOUT)/.test(error)
    if (window !== undefined && isReset) {
      row.excused += 1
      byWindow[window.what] = (byWindow[window.what] ?? 0) + 1
      continue
    }
    row.failed += 1
    const told = [...during(outcome, windows, begun), ...said(outcome, begun, programs)]
    violations.push(
      [`${kind} ${id}, from ${second(since, begun)} to ${second(ended, begun)} s: ${error}`, ...told].join('\n    '),
    )
  }
  const line = (...cells: (string | number)[]) =>
    cells.map((cell, index) => (index === 0 ? String(cell).padEnd(16) : String(cell).padStart(14))).join('')
  const table = [
    line('requests', 'asked', 'reset by faults', 'failed'),
    ...[...rows].sort().map(([kind, row]) => line(kind, row.begun, row.excused, row.failed)),
    ...Object.entries(byWindow).map(([what, count]) => `reset by ${what}: ${count}`),
  ]
  return { table, violations }
}

const second = (time: number, begun: number) => ((time - begun) / 1000).toFixed(1)

/** The faults that it lived through. */
function during({ begun: since, ended }: Outcome, windows: readonly Window[], begun: number): string[] {
  return windows
    .filter(({ from, until, over = until }) => from <= ended && Math.max(until, over) >= since)
    .map(({ what, from, until, over }) => {
      const back = over === undefined ? 'not over' : `over at ${second(over, begun)}`
      return `${second(from, begun)} s: ${what}, ${back}, excuses until ${second(until, begun)}`
    })
}

/** The gateway may tell of an end a second later. */
const saidMs = { before: 12_000, after: 2000 }

/** The log from some seconds before the failure on; of the lines about single connections only its own. */
function said({ ended, port }: Outcome, begun: number, programs: Record<string, readonly Program[]>): string[] {
  const lines: { at: number; text: string }[] = []
  for (const [name, all] of Object.entries(programs)) {
    for (const line of all.flatMap(({ output }) => output.split('\n'))) {
      const at = Date.parse(line.match(/"time":"([^"]+)"/)?.[1] ?? '')
      if (!(at > ended - saidMs.before && at < ended + saidMs.after)) continue
      if (line.includes('"level":"debug"') && !line.includes(`:${port}","`)) continue
      lines.push({ at, text: `${second(at, begun)} s, ${name}: ${line.replace(/"level":|"time":"[^"]+",/g, '')}` })
    }
  }
  return lines.sort((one, other) => one.at - other.at).map(({ text }) => text)
}
