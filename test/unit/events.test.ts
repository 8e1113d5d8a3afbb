/** Names of events, and the lines that the log has of them: people and their programs look for both. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { eventNames, lineOf, toLog } from '../../src/telemetry/events.js'
import { lines } from '../support/event-lines.js'
import { memoryLog } from '../support/memory-log.js'

const names = [
  'wan-list',
  'wan-changed',
  'wan-answers-again',
  'wan-mptcp',
  'wan-full-size',
  'wan-bundle',
  'wan-without-hag',
  'wan-joins-anew',
  'volume-lost',
  'volume-not-kept',
  'wan-use',
  'hag-list',
  'hag-lookup',
  'hag-changed',
  'hag-answers-requests',
  'hag-admission',
  'hag-reaches-ipv6',
  'connections-reset',
  'network-set-up',
  'network-changed',
  'network-note',
  'network-failed',
  'network-works-again',
  'kernel-black-hole',
  'kernel-black-hole-stays',
  'hag-need-unmet',
  'hag-need-met',
  'lan-redirected',
  'lan-not-redirected',
  'endpoint-not-deleted',
  'network-watch-ended',
  'guardian-ended',
  'redirection-stays',
  'network-restored',
  'other-hags-unknown',
  'hag-network-not-restored',
  'gateway-listens',
  'no-hag',
  'gateway-runs',
  'hag-listens',
  'hag-listens-not',
  'hag-without-mptcp',
  'control-failed',
  'stopping',
  'connections-aborted',
  'hag-stopped',
  'hangup-ignored',
  'option-refused',
  'secret-exposed',
  'users-read',
  'users-kept',
  'destinations-refused',
  'limit',
  'client-refused',
  'others-refused',
  'client-waits-for-names',
]

t.test('the names stay', async (t) => {
  t.same(eventNames, names, 'whoever looks for one must find it after an update, too')
})

t.test('the lines stay', async (t) => {
  for (const [event, line, fields = {}] of lines) {
    const { level, text, fields: found } = lineOf(event)
    t.equal(`${level} ${text}`, line)
    t.same(found, fields, line)
  }
  t.same([...new Set(lines.map(([{ type }]) => type))], names, 'every event has one')
})

t.test('the log has them', async (t) => {
  const log = memoryLog()
  const emit = toLog(log)
  for (const [event] of lines) emit(event)
  t.same(
    log.lines,
    lines.map(([, line]) => line),
  )
})

t.test('docs/operations.md has every warning, and no line that is gone', async (t) => {
  const root = join(import.meta.dirname, '../..')
  const [, table = ''] = readFileSync(join(root, 'docs/operations.md'), 'utf8').split('\n## The log\n')
  const begins = [...table.matchAll(/^\| (`.*?) +\|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`(.+?)`/g)].map(([, text = '']) =>
      // What stands for something else is in capitals.
      text.split(/\.\.\.|(?<=IPv)N\b|\b(?!(?:WAN|HAG|LAN|MPTCP)\b)[A-Z]+\b/),
    ),
  )
  const patterns = begins.map(
    (parts) => new RegExp(`^${parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.+')}`),
  )
  const shown = lines.map(([event]) => lineOf(event))
  const warnings = shown.filter(({ level, text }) => level !== 'info' && text !== 'n')
  t.same(
    warnings.map(({ text }) => text).filter((text) => !patterns.some((pattern) => pattern.test(text))),
    [],
  )
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  const source = sources.map((file) => readFileSync(join(root, 'src', file), 'utf8')).join('')
  const isThere = (parts: readonly string[], at: number) =>
    shown.some(({ text }) => patterns[at]?.test(text)) || parts.every((part) => source.includes(part))
  t.ok(begins.length > 40)
  t.same(
    begins.filter((parts, at) => !isThere(parts, at)).map((parts) => parts.join('...')),
    [],
  )
})
