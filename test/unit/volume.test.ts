import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Volume } from '../../src/wan/volume.js'
import { memoryLog } from '../support/memory-log.js'

const wans = [{ name: 'lte', interface: 'wwan0' }]
const at = (received: number, sent = 0) => new Map([['wwan0', { received, sent }]])

t.test('counts, survives a restart and a new interface', async (t) => {
  const file = join(mkdtempSync(join(tmpdir(), 'bondsocks-test-')), 'sub', 'volume.json')
  t.teardown(() => rmSync(join(file, '..', '..'), { recursive: true }))
  const log = memoryLog()
  let month = '2026-11'
  const start = () => new Volume({ file, log, month: () => month })
  let volume = start()
  volume.count(wans, at(1000), 0)
  t.equal(volume.used('lte'), 0, 'what it carried before us is not counted')
  volume.count(wans, at(1500, 100), 1000)
  t.equal(volume.used('lte'), 600)
  volume.count(wans, new Map(), 2000)
  volume.count(wans, at(50), 3000)
  t.equal(volume.used('lte'), 650, 'an interface made anew counts from 0')
  month = '2030-01'
  volume.count(wans, at(60), 4000)
  t.equal(volume.used('lte'), 10, 'another month')
  month = '2026-11'
  t.equal(volume.used('lte'), 650, 'a clock that is set right again')
  volume.save()
  volume = start()
  t.equal(volume.used('lte'), 650)
  volume.count(wans, at(70), 0)
  volume.count(wans, at(80), 1000)
  t.equal(volume.used('lte'), 660)
  volume.count(wans, at(90), 301_000)
  t.equal(JSON.parse(readFileSync(file, 'utf8'))['2026-11'].lte, 670, 'kept every five minutes')
  t.same(log.lines, [])
})

t.test('a damaged file, and one that cannot be written, are said once', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'volume.json')
  const log = memoryLog()
  for (const text of ['', '{"2026-11":', '[1]', '{"2026-11":{"lte":"much"}}']) {
    writeFileSync(file, text)
    t.equal(new Volume({ file, log }).used('lte'), 0)
  }
  t.equal(log.lines.length, 4)
  const volume = new Volume({ file: join(file, 'below-a-file'), log })
  volume.count(wans, at(0), 0)
  for (let i = 1; i < 5; i++) {
    volume.count(wans, at(i), i)
    volume.save()
  }
  t.ok(log.lines.length <= 6)
  t.match(log.lines.join(), /cannot be kept in/)
  t.equal(volume.used('lte'), 4, 'and it goes on counting')
})
