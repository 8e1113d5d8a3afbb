import t from 'tap'
import { Admissions } from '../../src/gateway/hags/admission.js'
import { memoryLog } from '../support/memory-log.js'

const hag = { address: '203.0.113.3', port: 1080 }
const other = { address: '203.0.113.4', port: 1080 }
const dsl = { wan: 'dsl', bind: '10.1.0.2' }
const lte = { wan: 'lte', bind: '10.2.0.2' }
const line = 'warn HAG 203.0.113.3:1080 refuses us over WAN lte, from 10.2.0.2: '

function start() {
  const log = memoryLog()
  let now = 0
  let changes = 0
  const onChange = () => {
    changes += 1
  }
  const admissions = new Admissions({ log, onChange, now: () => now })
  const refused = () => [dsl, lte].filter(({ bind }) => admissions.refuses(hag, bind)).map(({ wan }) => wan)
  return { admissions, log, refused, changes: () => changes, pass: (ms: number) => (now += ms) }
}

t.test('turned away, and taken in again: each said once', async (t) => {
  const { admissions, log, refused, changes } = start()
  for (let count = 0; count < 3; count++) admissions.turnedAway(hag, lte, 'why')
  t.same([refused(), changes(), log.lines], [['lte'], 1, [`${line}why`]])
  t.equal(admissions.refuses(other, lte.bind), false)
  for (let count = 0; count < 3; count++) admissions.greeted(hag, lte)
  t.same([refused(), changes()], [[], 2])
  t.same(log.lines.slice(1), ['info HAG 203.0.113.3:1080 serves us over WAN lte, from 10.2.0.2'])
})

t.test('one question that is not allowed says nothing; that it is allowed over another WAN does', async (t) => {
  const { admissions, log, refused } = start()
  admissions.answered(hag, lte, true)
  admissions.answered(other, dsl, false)
  t.same([refused(), log.lines], [[], []], 'another HAG has other rules')
  admissions.answered(hag, dsl, false)
  admissions.answered(hag, lte, true)
  t.same(refused(), ['lte'])
  admissions.greeted(hag, lte)
  t.same(refused(), ['lte'], 'a greeting is not what it refuses')
  admissions.answered(hag, lte, false)
  t.same(refused(), [])
})

t.test("users' requests tell where nothing else does, and what was served counts more", async (t) => {
  const { admissions, log, refused, pass } = start()
  admissions.answered(hag, lte, true)
  const refuse = () => {
    const isEnough = admissions.requestRefused(hag, lte)
    if (isEnough) admissions.confirm(hag, lte)
  }
  refuse()
  refuse()
  admissions.served(hag, lte)
  refuse()
  refuse()
  t.same(refused(), [])
  refuse()
  t.same(refused(), ['lte'])
  admissions.answered(hag, lte, true)
  t.same(refused(), ['lte'])
  pass(5 * 60_000)
  admissions.answered(hag, lte, true)
  t.same(refused(), [], 'after a while users try it again')
  for (let count = 0; count < 3; count++) refuse()
  t.same([refused(), log.lines.length], [['lte'], 1], 'and that is nothing new')
})

t.test('users whose requests are refused while the question is answered met a rule about their destinations', async (t) => {
  const { admissions, refused } = start()
  admissions.answered(hag, lte, false)
  for (let count = 0; count < 30; count++) if (admissions.requestRefused(hag, lte)) admissions.confirm(hag, lte)
  t.same(refused(), [])
})

t.test('what is asked, and how often', async (t) => {
  const { admissions, pass } = start()
  const free = { ...lte, metered: false }
  const metered = { ...lte, metered: true }
  const isDue = () => [free, metered].map((path) => admissions.isDue(hag, path))
  t.same(isDue(), [true, true])
  admissions.asks(hag, lte.bind)
  t.same(isDue(), [false, false], 'an answer may be under way')
  pass(30_000)
  t.same(isDue(), [true, false])
  admissions.answered(hag, lte, false)
  pass(3_600_000)
  t.same(isDue(), [false, false], 'one that serves us')
  for (let count = 0; count < 3; count++) admissions.requestRefused(hag, lte)
  t.same(isDue(), [true, true], 'its rules may have changed')
  admissions.answered(hag, lte, false)
  t.same(isDue(), [false, false], 'they have not')
  admissions.turnedAway(hag, lte, 'why')
  admissions.asks(hag, lte.bind)
  pass(10_000)
  t.same(isDue(), [true, false])
  pass(15 * 60_000)
  t.same(isDue(), [true, true])
  admissions.keep([other])
  t.equal(admissions.refuses(hag, lte.bind), false, 'a HAG that is gone')
})
