/** The results of a run: as a table, as JSON, and as a picture. */

import { median } from '../src/lab/measure.js'
import type { Medians, Metric } from './figures/figure.js'

export interface Results {
  date: string
  /** The commit of the measured sources. */
  commit: string
  machine: string
  quick: boolean
  repetitions: number
  candidates: string[]
  /** By metric id and candidate: a value for each repetition. */
  values: Record<string, Record<string, number[]>>
  /** What could not be measured, and why. */
  failures: string[]
}

export interface Row {
  metric: Metric
  /** By candidate. */
  cells: Record<string, { median: number; low: number; high: number } | undefined>
  /** The bound for bondsocks, and whether it was met (undefined: not known). Undefined if there is no bound. */
  asked?: { text: string; met: boolean | undefined }
}

const ours = 'bondsocks'

export function rowsOf({ values, candidates }: Results, metrics: readonly Metric[]): Row[] {
  return metrics.map((metric) => {
    const cells: Row['cells'] = {}
    for (const name of candidates) {
      const all = values[metric.id]?.[name]
      if (all?.length) cells[name] = { median: median(all), low: Math.min(...all), high: Math.max(...all) }
    }
    const medians: Medians = Object.fromEntries(Object.entries(cells).map(([name, cell]) => [name, cell?.median]))
    const own = medians[ours]
    const [max, min] = [metric.max?.(medians), metric.min?.(medians)]
    const row: Row = { metric, cells }
    if (max !== undefined) {
      row.asked = { text: `<= ${format(max)}`, met: own === undefined ? undefined : own <= max }
    } else if (min !== undefined) {
      row.asked = { text: `>= ${format(min)}`, met: own === undefined ? undefined : own >= min }
    }
    return row
  })
}

/** Three significant digits. */
export function format(value: number): string {
  const digits = Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2
  return value.toFixed(digits)
}

type Cell = NonNullable<Row['cells'][string]>

/** The lines of a table; the first one names the columns. Rows without values are left out. */
function grid({ candidates }: Results, rows: readonly Row[], text: (cell: Cell) => string): string[][] {
  const shown = rows.filter(({ cells }) => candidates.some((name) => cells[name] !== undefined))
  const lines = shown.map(({ metric, cells, asked }) => [
    metric.unit === '' ? metric.label : `${metric.label}, ${metric.unit}`,
    ...candidates.map((name) => {
      const cell = cells[name]
      return cell === undefined ? '-' : text(cell)
    }),
    asked === undefined ? '' : `${asked.text} ${asked.met === undefined ? '' : asked.met ? 'met' : 'MISSED'}`.trim(),
  ])
  const all = [['', ...candidates, 'asked of bondsocks'], ...lines]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0))) ?? []
  return all.map((line) =>
    line.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))),
  )
}

/** Medians, with the smallest and the largest value if there are several. */
export function table(results: Results, rows: readonly Row[]): string {
  const spread = ({ low, high }: Cell) => (results.repetitions > 1 ? ` (${format(low)}-${format(high)})` : '')
  const lines = grid(results, rows, (cell) => `${format(cell.median)}${spread(cell)}`)
  return lines.map((line) => `${line.join('   ').trimEnd()}\n`).join('')
}

/** Medians, as a Markdown table. */
export function markdown(results: Results, rows: readonly Row[]): string {
  const [head = [], ...lines] = grid(results, rows, ({ median }) => format(median))
  const rule = head.map(({ length }, column) => (column === 0 ? '-'.repeat(length) : `${'-'.repeat(length - 1)}:`))
  return [head, rule, ...lines].map((line) => `| ${line.join(' | ')} |\n`).join('')
}

const rowHeight = 18
const panelWidth = 460
const labelWidth = 130
const barWidth = 200
const colours: Record<string, string> = { [ours]: '#1f6fb4', yardstick: '#555555' }

/** Bars of the medians, with the spread as a line: a panel for each metric, two panels side by side. */
export function svg(results: Results, rows: readonly Row[]): string {
  const shown = rows.filter(({ cells }) => Object.keys(cells).length > 0)
  const panelHeight = 44 + rowHeight * results.candidates.length
  const top = 50
  const height = top + Math.ceil(shown.length / 2) * panelHeight
  const parts = shown.map((row, index) => {
    const x = 20 + (index % 2) * panelWidth
    const y = top + Math.floor(index / 2) * panelHeight
    return `<g transform="translate(${x} ${y})">${panel(results, row)}</g>`
  })
  const title = `bondsocks ${results.commit}, ${results.date}: medians of ${results.repetitions}, with least and greatest`
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${2 * panelWidth + 20}" height="${height}" font-family="sans-serif" font-size="12">
<title>${escaped(title)}</title>
<rect width="100%" height="100%" fill="white"/>
<text x="20" y="28" font-size="15">${escaped(title)}</text>
${parts.join('\n')}
</svg>
`
}

function panel({ candidates }: Results, { metric, cells, asked }: Row): string {
  const greatest = Math.max(...Object.values(cells).map((cell) => cell?.high ?? 0)) || 1
  const place = (value: number) => (labelWidth + (barWidth * Math.max(0, value)) / greatest).toFixed(1)
  const bars = candidates.map((name, index) => {
    const cell = cells[name]
    const y = 12 + index * rowHeight
    const label = `<text x="${labelWidth - 8}" y="${y + 11}" text-anchor="end">${escaped(name)}</text>`
    if (cell === undefined) return `${label}<text x="${labelWidth}" y="${y + 11}" fill="#777">-</text>`
    const length = (Number(place(cell.median)) - labelWidth).toFixed(1)
    return [
      label,
      `<rect x="${labelWidth}" y="${y}" width="${length}" height="13" fill="${colours[name] ?? '#b0b0b0'}"/>`,
      `<line x1="${place(cell.low)}" x2="${place(cell.high)}" y1="${y + 6.5}" y2="${y + 6.5}" stroke="black"/>`,
      `<text x="${Number(place(cell.high)) + 6}" y="${y + 11}">${format(cell.median)}</text>`,
    ].join('')
  })
  const unit = metric.unit === '' ? '' : `, ${metric.unit}`
  const target = asked === undefined ? '' : ` (asked: ${asked.text})`
  return `<text font-weight="bold" y="2">${escaped(`${metric.label}${unit}${target}`)}</text>${bars.join('')}`
}

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
