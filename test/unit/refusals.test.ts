import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { mock } from 'node:test'
import t from 'tap'
import type { Refusal } from '../../src/engine/contract.js'
import { Refusals } from '../../src/service/refusals.js'
import { toLog } from '../../src/telemetry/events.js'
import { createLog } from '../../src/telemetry/log.js'
import { memoryLog } from '../support/memory-log.js'
import { needsPrograms } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'

function start(t: { teardown(act: () => void): void }) {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => mock.timers.reset())
  const log = memoryLog()
  let waiting: Refusal[] = []
  const refusals = new Refusals(
    { takeRefusals: () => waiting.splice(0) },
    { perClient: '75 connections (its share)' },
    toLog(log),
  )
  /** As the engine does. */
  const refuse = (...those: Refusal[]) => {
    const isFirst = waiting.length === 0
    waiting = [...waiting, ...those]
    if (isFirst) refusals.refused()
  }
  const lines = () => log.lines.splice(0)
  return { refusals, refuse, lines, waiting: () => waiting }
}

const stranger: Refusal = { cause: 'not-a-client', client: '203.0.113.9', count: 1 }

t.test('each address at once, then once a minute while it goes on', async (t) => {
  const { refuse, lines } = start(t)
  refuse(stranger)
  t.same(lines(), ['warn refused 203.0.113.9: not in `clients`'])
  refuse({ ...stranger, count: 37 })
  refuse({ cause: 'credentials', client: '198.51.100.9', count: 2 })
  t.same(lines(), [], 'who asks in a moment')
  mock.timers.tick(1000)
  t.same(lines(), ['warn refused 198.51.100.9: wrong user name or password (2 times)'], 'another address')
  mock.timers.tick(58_000)
  t.same(lines(), [])
  mock.timers.tick(1000)
  t.same(lines(), ['warn refused 203.0.113.9: not in `clients` (37 times in the last minute)'])
  refuse(stranger)
  refuse({ ...stranger, cause: 'share' })
  mock.timers.tick(1000)
  t.same(lines(), ['warn refused 203.0.113.9: it has 75 connections (its share), or as many as are free'], 'for another reason')
  mock.timers.tick(59_000)
  t.same(lines(), ['warn refused 203.0.113.9: not in `clients` (once in the last minute)'])
  mock.timers.tick(600_000)
  t.same(lines(), [])
  refuse({ ...stranger, cause: 'waited', count: 2 })
  t.same(lines(), ['warn refused 203.0.113.9: it had asked for nothing yet, and others needed its place (2 times)'])
})

const guide = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')
const [, expression = ''] = /`failregex = (.+?)`/.exec(guide) ?? []

t.test('as fail2ban itself reads a log', { skip: needsPrograms('fail2ban-regex') }, async (t) => {
  const written: string[] = []
  const emit = toLog(createLog('info', { write: (line) => written.push(line) }))
  const refusedOnes = ['203.0.113.9', '2001:db8::9']
  for (const client of refusedOnes)
    emit({ type: 'client-refused', cause: 'credentials', client, count: 3, limit: '', destination: '' })
  emit({ type: 'client-refused', cause: 'share', client: '203.0.113.8', count: 1, limit: '', destination: '' })
  emit({ type: 'network-works-again' })
  const file = join(t.testdir({ 'hag.log': written.join('') }), 'hag.log')
  const { code, stdout } = await outcome(['fail2ban-regex', '--verbose', file, expression])
  t.equal(code, 0)
  t.match(stdout, /^Lines: 4 lines, 0 ignored, 2 matched, 2 missed/m)
  const today = new Date().toDateString().split(' ').slice(0, 3).join(' ')
  for (const client of refusedOnes) t.match(stdout, new RegExp(`${client}  ${today} `), 'with its time')
})

t.test('as fail2ban reads it', (t) => {
  const { refuse, lines } = start(t)
  const failure = new RegExp(expression.replace('<ADDR>', '(?<address>[0-9a-f.:]+)'))
  const banned = (...those: Refusal[]) => {
    refuse(...those)
    mock.timers.tick(1000)
    const asLogged = lines().map((line) => JSON.stringify({ level: 'warn', message: line.replace(/^warn /, '') }))
    return asLogged.map((line) => failure.exec(line)?.groups?.address)
  }
  t.same(banned(stranger), ['203.0.113.9'])
  t.same(banned({ cause: 'credentials', client: '2001:db8::9', count: 3 }), ['2001:db8::9'])
  t.same(banned({ cause: 'share', client: '203.0.113.8', count: 1 }), [undefined], 'who asks for much is no attacker')
  t.end()
})

t.test('a flood from everywhere is a few lines', async (t) => {
  const { refuse, lines } = start(t)
  refuse(stranger)
  lines()
  const many = Array.from({ length: 200 }, (_, i): Refusal => ({ cause: 'not-a-client', client: `10.0.0.${i}`, count: i + 1 }))
  refuse(...many, { cause: 'not-a-client', count: 5000 })
  mock.timers.tick(1000)
  const first = lines()
  t.equal(first.length, 9, 'ten lines in all')
  t.equal(first[0], 'warn refused 10.0.0.199: not in `clients` (200 times)')
  mock.timers.tick(59_000)
  const written = lines()
  t.equal(written.length, 11)
  t.equal(written[0], 'warn refused 10.0.0.190: not in `clients` (191 times in the last minute)')
  t.equal(written[10], `warn refused others ${5000 + (181 * 182) / 2} times in the last minute`)
  for (let minute = 0; minute < 10; minute++) {
    for (let second = 0; second < 60; second++) {
      refuse(...many.map((one) => ({ ...one, client: `10.${minute}.${second}.${one.count}` })))
      mock.timers.tick(1000)
    }
  }
  t.ok(lines().length <= 10 * 21, 'however long it goes on')
})

t.test('the end waits for nothing, and loses nothing', async (t) => {
  const { refusals, refuse, lines } = start(t)
  refusals.close()
  refuse(stranger)
  lines()
  refuse({ ...stranger, count: 3 })
  refusals.close()
  t.same(lines(), ['warn refused 203.0.113.9: not in `clients` (3 times since then)'])
  mock.timers.tick(120_000)
  t.same(lines(), [])
})
