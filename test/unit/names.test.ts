import t from 'tap'
import type { Found } from '../../src/base/resolve.js'
import { Names } from '../../src/hag/names.js'
import { toLog } from '../../src/telemetry/events.js'
import { settle } from '../support/far-side.js'
import { memoryLog } from '../support/memory-log.js'

interface Question {
  name: string
  signal: AbortSignal
  answer(...addresses: string[]): void
  fail(code: string): void
}

/** A resolver that answers when the test says so, and a clock that the test moves. */
function world({ atOnce }: { atOnce?: number } = {}) {
  const questions: Question[] = []
  const clock = { now: 0, lifetimeMs: 60_000 }
  const log = memoryLog()
  const resolver = {
    known: (name: string) => (name === 'localhost' || name === '127.0.0.1' ? ['127.0.0.1'] : undefined),
    ask: (name: string, signal: AbortSignal) =>
      new Promise<Found>((resolve, reject) => {
        const fail = (code: string) => reject(Object.assign(new Error(code), { code }))
        const { lifetimeMs } = clock
        questions.push({ name, signal, answer: (...addresses) => resolve({ addresses, lifetimeMs }), fail })
        signal.addEventListener('abort', () => fail('ECANCELLED'))
      }),
  }
  const names = new Names({ emit: toLog(log), resolver, now: () => clock.now, ...(atOnce !== undefined && { atOnce }) })
  const ask = (name: string, client = '10.0.0.1') => {
    const leave = new AbortController()
    const asked = { leave: () => leave.abort(), result: undefined as unknown }
    names.resolve(name, client, leave.signal).then(
      (addresses) => (asked.result = addresses.join()),
      ({ code }: NodeJS.ErrnoException) => (asked.result = code),
    )
    return asked
  }
  const askMany = (count: number, domain: string, client?: string) =>
    Array.from({ length: count }, (_, index) => ask(`${index}.${domain}`, client))
  const question = (name: string) => questions.findLast((one) => one.name === name)
  return { ask, askMany, clock, log, questions, question, asked: () => questions.map(({ name }) => name) }
}

t.test('the same name is asked for once, and kept as long as its records live', async (t) => {
  const { ask, clock, asked, question } = world()
  const [first, second] = [ask('a.example'), ask('A.Example.', '10.0.0.2')]
  question('a.example')?.answer('192.0.2.1', '192.0.2.2')
  await settle()
  t.same([first.result, second.result], ['192.0.2.1,192.0.2.2', '192.0.2.1,192.0.2.2'])
  clock.now = 59_999
  const third = ask('a.example')
  await settle()
  t.equal(third.result, '192.0.2.1,192.0.2.2')
  t.same(asked(), ['a.example'])
  clock.now = 60_000
  ask('a.example')
  t.same(asked(), ['a.example', 'a.example'])
})

t.test('an answer without time to live is not kept', async (t) => {
  const { ask, clock, asked, question } = world()
  clock.lifetimeMs = 0
  ask('a.example')
  question('a.example')?.answer('192.0.2.1')
  await settle()
  ask('a.example')
  t.equal(asked().length, 2)
})

t.test('numbers, the hosts file and what is no name ask nobody', async (t) => {
  const { ask, questions } = world()
  const all = [ask('127.1'), ask('localhost'), ask('a b'), ask('1.2.3.4.5')]
  await settle()
  t.same(
    all.map(({ result }) => result),
    ['127.0.0.1', '127.0.0.1', 'ENOTFOUND', 'ENOTFOUND'],
  )
  t.same(questions, [])
})

t.test('that there is no such name is kept for 5 s, that nobody answered for one', async (t) => {
  for (const [code, keptMs] of [
    ['ENOTFOUND', 5000],
    ['ENODATA', 5000],
    ['ETIMEOUT', 1000],
    ['ESERVFAIL', 1000],
  ] as const) {
    const { ask, clock, asked, question } = world()
    ask('a.example')
    question('a.example')?.fail(code)
    await settle()
    clock.now = keptMs - 1
    const again = ask('a.example')
    await settle()
    t.equal(again.result, code)
    clock.now = keptMs
    ask('a.example')
    t.equal(asked().length, 2, code)
  }
})

t.test('a client with many silent names waits for its own, and nobody else does', async (t) => {
  const { ask, askMany, asked, question, log } = world()
  const greedy = askMany(40, 'silent.example')
  t.equal(asked().length, 16)
  const other = ask('good.example', '10.0.0.2')
  t.equal(asked().at(-1), 'good.example')
  question('good.example')?.answer('192.0.2.1')
  await settle()
  t.equal(other.result, '192.0.2.1')
  question('3.silent.example')?.fail('ETIMEOUT')
  await settle()
  t.equal(greedy[3]?.result, 'ETIMEOUT')
  t.equal(asked().at(-1), '16.silent.example', 'its next one, in the order in which they came')
  greedy[17]?.leave()
  greedy[4]?.leave()
  await settle()
  t.equal(question('4.silent.example')?.signal.aborted, true)
  t.equal(asked().at(-1), '18.silent.example')
  t.equal(log.lines.length, 1)
  t.match(log.lines[0], /warn a client asks for more names than are answered/)
})

t.test('a name that was answered meanwhile frees the turns of those who wait for it', async (t) => {
  const { ask, askMany, asked, question } = world()
  askMany(16, 'silent.example')
  const waiting = [ask('a.example'), ask('a.example'), ask('b.example')]
  ask('a.example', '10.0.0.2')
  question('a.example')?.answer('192.0.2.1')
  await settle()
  question('0.silent.example')?.answer('192.0.2.2')
  await settle()
  t.same(
    waiting.map(({ result }) => result),
    ['192.0.2.1', '192.0.2.1', undefined],
  )
  t.equal(asked().at(-1), 'b.example')
})

t.test('all addresses of an IPv6 client are one client', (t) => {
  const { askMany, asked } = world()
  askMany(10, 'one.example', '2001:db8:1:2::1')
  askMany(10, 'two.example', '2001:db8:1:2:3::1')
  t.equal(asked().length, 16)
  askMany(10, 'three.example', '2001:db8:1:3::1')
  t.equal(asked().length, 26)
  t.end()
})

t.test('a question goes on while anybody waits for it, and ends with the last', async (t) => {
  const { ask, question } = world()
  const [first, second] = [ask('a.example'), ask('a.example', '10.0.0.2')]
  first.leave()
  await settle()
  t.equal(first.result, 'ECANCELLED')
  t.equal(question('a.example')?.signal.aborted, false)
  second.leave()
  await settle()
  t.equal(question('a.example')?.signal.aborted, true)
  const third = ask('a.example')
  question('a.example')?.answer('192.0.2.1')
  await settle()
  t.equal(third.result, '192.0.2.1', 'that it was cancelled is not kept')
})

t.test('where all places are taken the greediest makes room, by what is silent for longest', async (t) => {
  const { ask, askMany, asked, questions, question } = world({ atOnce: 8 })
  // Two of eight each.
  const all = ['one', 'two', 'three', 'four'].map((name, index) => askMany(2, name, `10.0.0.${index}`))
  const joined = ask('0.one', '10.0.0.9')
  const newcomer = ask('new.example', '10.0.0.5')
  t.equal(asked().filter((name) => name === 'new.example').length, 1)
  await settle()
  t.match([all[0]?.[0]?.result, all[1]?.[0]?.result, joined.result, newcomer.result], ['EBUSY', 'EBUSY', undefined, undefined])
  t.equal(questions.filter(({ signal }) => !signal.aborted).length, 8)
  for (let more = 0; more < 100; more++) ask(`${more}.example`, `10.0.1.${more}`)
  t.equal(questions.filter(({ signal }) => !signal.aborted).length, 8, 'never more')
  const last = ask('last.example', '10.0.0.6')
  question('last.example')?.answer('192.0.2.1')
  await settle()
  t.equal(last.result, '192.0.2.1')
})

t.test('nobody is left waiting for a turn of a client that has made room', async (t) => {
  // One of four each.
  const { ask, question } = world({ atOnce: 4 })
  const [first, second] = [ask('a.one'), ask('b.one')]
  for (let more = 2; more <= 5; more++) ask(`${more}.example`, `10.0.0.${more}`)
  for (let more = 2; more <= 5; more++) question(`${more}.example`)?.answer('192.0.2.1')
  await settle()
  t.same([first.result, second.result], ['EBUSY', 'EBUSY'])
})

t.test('what is kept is bounded', async (t) => {
  const { ask, asked, question } = world()
  for (let index = 0; index <= 1000; index++) {
    ask(`${index}.example`)
    question(`${index}.example`)?.answer('192.0.2.1')
    await settle()
  }
  const before = asked().length
  ask('1.example')
  t.equal(asked().length, before)
  ask('0.example')
  t.equal(asked().length, before + 1, 'the oldest was forgotten')
})
