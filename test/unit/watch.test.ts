/** A terminal that the test plays. */
import { EventEmitter } from 'node:events'
import t from 'tap'
import { type Terminal, watchText } from '../../src/cli/watch.js'
import { settle } from '../support/far-side.js'
import { VirtualTime } from '../support/virtual-time.js'

const time = new VirtualTime()
time.start()
t.teardown(() => time.end())

function terminal(columns = 40, rows = 5) {
  const input = Object.assign(new EventEmitter(), {
    isRaw: false,
    setRawMode: (isRaw: boolean) => (input.isRaw = isRaw),
    resume() {},
    pause() {},
  })
  const output = Object.assign(new EventEmitter(), {
    columns,
    rows,
    written: [] as string[],
    write(text: string) {
      output.written.push(text)
      return true
    },
  })
  return { input, output, both: { input, output } as unknown as Terminal }
}

const open = '\u001b[?1049h\u001b[?25l\u001b[?7l'
const close = '\u001b[?7h\u001b[?25h\u001b[?1049l'
const shown = (...lines: string[]) => `\u001b[H${lines.map((line) => `${line}\u001b[K`).join('\r\n')}\u001b[J`

t.test('once a second, in place, until q', async (t) => {
  const { input, output, both } = terminal()
  let count = 0
  const ended = watchText(async (columns) => `${columns} columns\n${++count}\n`, 'help', both, new AbortController().signal)
  await settle()
  t.same(output.written, [open, shown('40 columns', '1')])
  t.equal(input.isRaw, true)
  await time.until(() => count === 2, 1000)
  await settle()
  t.equal(output.written.at(-1), shown('40 columns', '2'))
  output.columns = 30
  output.emit('resize')
  t.equal(output.written.at(-1), shown('40 columns', '2'), 'drawn again at once')
  await time.until(() => count === 3, 1000)
  await settle()
  t.equal(output.written.at(-1), shown('30 columns', '3'))
  input.emit('data', Buffer.from('?'))
  t.equal(output.written.at(-1), shown('help'))
  input.emit('data', Buffer.from('?'))
  t.equal(output.written.at(-1), shown('30 columns', '3'))
  input.emit('data', Buffer.from('q'))
  await ended
  t.equal(output.written.at(-1), close)
  t.equal(input.isRaw, false)
  t.notOk(output.written.join('').includes('\u001b[2J'), 'a cleared screen flickers')
  t.same([input.listenerCount('data'), output.listenerCount('resize')], [0, 0])
})

t.test('what does not fit is left out', async (t) => {
  const { input, output, both } = terminal(40, 2)
  const ended = watchText(async () => 'one\ntwo\nthree\n', 'help', both, new AbortController().signal)
  await settle()
  t.equal(output.written.at(-1), shown('one', 'two'))
  input.emit('data', Buffer.from('\u0003'))
  await ended
})

t.test('however it ends the terminal is as before', async (t) => {
  const failing = terminal()
  const failed = watchText(() => Promise.reject(new Error('no socket')), 'help', failing.both, new AbortController().signal)
  await t.rejects(failed, { message: 'no socket' })
  t.equal(failing.output.written.at(-1), close)
  const signalled = terminal()
  const stop = new AbortController()
  const ended = watchText(async () => 'x', 'help', signalled.both, stop.signal)
  await settle()
  stop.abort()
  await ended
  t.equal(signalled.output.written.at(-1), close)
  const gone = terminal()
  const left = watchText(async () => 'x', 'help', gone.both, new AbortController().signal)
  await settle()
  gone.input.emit('end')
  await left
  t.equal(gone.input.isRaw, false)
})

t.test('a serial console that does not tell its size counts as 80 columns and 24 rows', async (t) => {
  const { input, output, both } = terminal(0, 0)
  const ended = watchText(async (columns) => `${columns}\n${'x\n'.repeat(30)}`, 'help', both, new AbortController().signal)
  await settle()
  t.equal(output.written.at(-1), shown('80', ...Array(23).fill('x')))
  input.emit('data', Buffer.from('q'))
  await ended
})

t.test('a terminal that is closed ends it, whatever error that is', async (t) => {
  const { input, both } = terminal()
  const ended = watchText(async () => 'x', 'help', both, new AbortController().signal)
  await settle()
  input.emit('error', new Error('EIO'))
  await ended
  t.equal(input.isRaw, false)
})

t.test('lines that are longer than the terminal do not move what is below', async (t) => {
  const { output, both } = terminal(10, 2)
  const stop = new AbortController()
  const ended = watchText(async () => 'longer than ten columns\nsecond', 'help', both, stop.signal)
  await settle()
  stop.abort()
  await ended
  t.match(output.written[0], '\u001b[?7l', 'lines do not wrap')
  t.match(output.written.at(-1), '\u001b[?7h', 'until it ends')
})
