import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Volume } from '../../src/gateway/roles/volume.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'

const wans = [{ name: 'lte', interface: 'wwan0' }]
const at = (received: number, sent = 0) => new Map([['wwan0', { received, sent }]])

t.test('counts, survives a restart and a new interface', async (t) => {
  const file = join(mkdtempSync(join(tmpdir(), 'bondsocks-test-')), 'sub', 'volume.json')
  t.teardown(() => rmSync(join(file, '..', '..'), { recursive: true }))
  const log = memoryLog()
  let month = '2026-11'
  const start = () => new Volume({ file, emit: toLog(log), month: () => month })
  let volume = start()
  volume.count(wans, at(1000), 0)
  t.equal(volume.used('lte'), 0, 'what it carried before us is not counted')
  volume.count(wans, at(1500, 100), 1000)
  t.equal(volume.used('lte'), 600)
  volume.count(wans, new Map(), 2000)
  volume.count(wans, at(50), 3000)
  t.equal(volume.used('lte'), 650, 'an interface made anew counts from 0')
  month = '2026-12'
  volume.count(wans, at(60), 4000)
  t.equal(volume.used('lte'), 10, 'another month')
  await volume.save()
  volume = start()
  t.equal(volume.used('lte'), 10)
  volume.count(wans, at(70), 0)
  volume.count(wans, at(80), 1000)
  t.equal(volume.used('lte'), 20)
  volume.count(wans, at(90), 301_000)
  await volume.save()
  t.same(JSON.parse(readFileSync(file, 'utf8')), { '2026-11': { lte: 650 }, '2026-12': { lte: 30 } }, 'kept every five minutes')
  t.same(log.lines, [])
})

const dayMs = 24 * 3_600_000

t.test('clocks that leap', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  let files = 0
  /** Each step: what the clock says, and for how long (ms) it has said so when 100 bytes more are counted. */
  const run = async (saved: object, ...steps: [month: string, ms?: number][]) => {
    const file = join(folder, `${++files}.json`)
    writeFileSync(file, JSON.stringify(saved))
    let [[month] = ['']] = steps
    let total = 0
    let now = 0
    const volume = new Volume({ file, emit: toLog(memoryLog()), month: () => month })
    volume.count(wans, at(0), now)
    const used = []
    for (const [next, ms = 1000] of steps) {
      month = next
      volume.count(wans, at(total), now + 1)
      total += 100
      now += ms
      volume.count(wans, at(total), now)
      used.push(volume.used('lte'))
    }
    await volume.save()
    return { used, file: JSON.parse(readFileSync(file, 'utf8')) }
  }
  const november = { '2026-10': { lte: 7 }, '2026-11': { lte: 5000 } }
  const cases: [string, Awaited<ReturnType<typeof run>>, number[], object][] = [
    [
      'it begins in 1970: what was used this month counts at once, and what it counts goes along',
      await run(november, ['1970-01'], ['1970-01'], ['2026-11'], ['2026-11']),
      [5100, 5200, 5300, 5400],
      { ...november, '2026-11': { lte: 5400 } },
    ],
    [
      'a month has passed while it was off',
      await run(november, ['1970-01'], ['2026-12']),
      [5100, 200],
      { ...november, '2026-12': { lte: 200 } },
    ],
    ['nothing is known yet', await run({}, ['1970-01'], ['2026-12']), [100, 200], { '2026-12': { lte: 200 } }],
    [
      'a year too far, and back',
      await run(november, ['2026-11'], ['2027-11'], ['2026-11']),
      [5100, 200, 5300],
      { ...november, '2026-11': { lte: 5300 } },
    ],
    [
      'years back, and forth',
      await run(november, ['2026-11'], ['2001-01'], ['2026-11']),
      [5100, 5200, 5300],
      { ...november, '2026-11': { lte: 5300 } },
    ],
    [
      'the file was written by a clock that was wrong, as a day shows',
      await run({ '2099-01': { lte: 30 }, '2098-07': { lte: 1 } }, ['2026-11', dayMs / 2], ['2026-11', dayMs], ['2026-11']),
      [130, 230, 330],
      { '2026-11': { lte: 330 } },
    ],
    [
      'month after month',
      await run(november, ['2026-11', dayMs], ['2026-12', dayMs], ['2027-01', dayMs]),
      [5100, 100, 100],
      { ...november, '2026-11': { lte: 5100 }, '2026-12': { lte: 100 }, '2027-01': { lte: 100 } },
    ],
  ]
  for (const [what, { used, file }, wanted, kept] of cases) {
    t.same(used, wanted, what)
    t.same(file, kept, `${what}: the file`)
  }
})

const hasStrace = spawnSync('strace', ['-V']).status === 0

t.test('a power cut leaves the old file or the new one', { skip: hasStrace ? false : 'needs strace' }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'volume.json')
  const script = `
    const { Volume } = await import(${JSON.stringify(new URL('../../src/gateway/roles/volume.ts', import.meta.url).href)})
    const volume = new Volume({ file: ${JSON.stringify(file)}, emit: console.error })
    for (const received of [0, 500]) volume.count([{ name: 'lte', interface: 'wwan0' }], new Map([['wwan0', { received, sent: 0 }]]), 0)
    await volume.save()`
  const traced = ['-f', '-qq', '-y', '-e', 'trace=write,fsync,fdatasync,rename,renameat,renameat2', process.execPath]
  const { stderr } = spawnSync('strace', [...traced, '--import=tsx', '--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: process.env.HOME },
  })
  const deeds = [...stderr.matchAll(/\b(write|f(?:data)?sync|rename\w*)\([^\n]*volume\.json/g)].map(([, deed]) => deed)
  t.same(deeds, ['write', 'fsync', 'rename'])
  t.equal(Object.values(JSON.parse(readFileSync(file, 'utf8')) as Record<string, { lte: number }>)[0]?.lte, 500)
})

t.test('a damaged file, and one that cannot be written, are said once', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'volume.json')
  const log = memoryLog()
  for (const text of ['', '{"2026-11":', '[1]', '{"2026-11":{"lte":"much"}}']) {
    writeFileSync(file, text)
    t.equal(new Volume({ file, emit: toLog(log) }).used('lte'), 0)
  }
  t.equal(log.lines.length, 4)
  const volume = new Volume({ file: join(file, 'below-a-file'), emit: toLog(log) })
  volume.count(wans, at(0), 0)
  for (let i = 1; i < 5; i++) {
    volume.count(wans, at(i), i)
    await volume.save()
  }
  t.ok(log.lines.length <= 6)
  t.match(log.lines.join(), /cannot be kept in/)
  t.equal(volume.used('lte'), 4, 'and it goes on counting')
})
