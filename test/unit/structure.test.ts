import t from 'tap'
import { clockFaults, forbiddenWords, includeFaults, longFiles, spreadFaults, wordFaults } from '../../scripts/lib/structure.js'

t.test('a file above 350 lines', async (t) => {
  t.strictSame(longFiles(new Map([['a.ts', 'line\n'.repeat(350)]])), [])
  t.match(longFiles(new Map([['a.ts', 'line\n'.repeat(351)]])), [/a\.ts has 351 lines/])
})

t.test('C++ includes', async (t) => {
  const faultsOf = (files: Record<string, string>) =>
    includeFaults(new Map(Object.entries(files).map(([path, names]) => [path, names.replace(/\S+/g, '#include "$&"\n')])))
  t.strictSame(
    faultsOf({ 'core/a.h': '', 'engine/b.h': 'core/a.h', 'listeners/c.h': 'engine/b.h', 'engine/worker.h': 'listeners/c.h' }),
    [],
  )
  t.match(faultsOf({ 'core/a.h': 'engine/b.h', 'engine/b.h': '' }), [/core\/a\.h includes engine\/b\.h, which stands above/])
  t.match(faultsOf({ 'engine/b.h': 'listeners/c.h', 'listeners/c.h': '' }), [/stands above/])
  t.match(faultsOf({ 'core/a.h': 'core/b.h', 'core/b.h': 'core/a.h' }), [/in a circle: core\/a\.h > core\/b\.h > core\/a\.h/])
  t.match(faultsOf({ 'engine/b.h': 'lab/d.h', 'lab/d.h': '' }), [/the lab's addon/])
  t.match(faultsOf({ 'attic/a.h': '' }), [/in no layer/])
  t.match(faultsOf({ 'core/a.h': '../engine/b.h', 'engine/b.h': '' }), [/core\/a\.h includes \.\.\/engine\/b\.h: say it from/])
})

t.test('a decision with a clock', async (t) => {
  const faultsOf = (text: string) => clockFaults(new Map([['a.ts', text]]))
  t.strictSame(faultsOf('// performance.now()\nconst isDue = ({ at }: { at: number }, now: number) => now >= at'), [])
  t.match(faultsOf('const isDue = (at: number) => performance.now() >= at'), [/a\.ts names performance: /])
})

t.test('spreads that hide misspelt keys', async (t) => {
  const faultsOf = (text: string) => spreadFaults(new Map([['a.ts', `const one = {\n${text} }`]]))
  for (const text of ['...other', '...(await other())', 'key: [...{ a }.a]', '...(isFirst ? one : two)', '...f({ a })'])
    t.strictSame(faultsOf(text), [], text)
  for (const text of ['...{ a }', '...(a !== undefined && { a })', '...(a === undefined ? {} : { a })', '...(a ?? {})'])
    t.match(faultsOf(text), [/a\.ts:2 spreads an object/], text)
})

t.test("the glossary's words", async (t) => {
  const words = forbiddenWords(
    [
      '| word | means | not |',
      '| ---- | ----- | --- |',
      '| fast path | x | standing order |',
      '| path | y | `way`, heard |',
      '',
      '| a | b | c |',
    ].join('\n'),
  )
  t.strictSame(
    words.map(({ text }) => text),
    ['standing order', 'way', 'heard'],
  )
  const faultsOf = (path: string, text: string) => wordFaults(new Map([[path, text]]), words).map((fault) => fault.split('`')[1])
  t.strictSame(faultsOf('a.ts', 'class A { #setStandingOrder() { const { way, heardAt } = this } }'), [
    '#setStandingOrder',
    'way',
    'heardAt',
  ])
  t.strictSame(faultsOf('a.h', 'bool isHeard(int way);'), ['isHeard', 'way'])
  // What is said in comments and texts is no name, and words may be parts of other words.
  t.strictSame(faultsOf('a.ts', "// heard\nconst gateway = `way 'heard'`; halfway(giveWay, unheard)"), [])
  t.strictSame(faultsOf('a.cpp', '/* heard */ say("heard", "a \\" way"); // way\n giveWay(unheard);'), [])
})
