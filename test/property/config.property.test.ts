import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { stringify } from 'yaml'
import { BondsocksError } from '../../src/base/errors.js'
import { nearest } from '../../src/base/nearest.js'
import { checkText } from '../../src/config/load.js'

/** The only outcomes: a kind, or lines that each say where. */
function outcome(text: string): void {
  try {
    t.ok(['gateway', 'hag'].includes(checkText(text, 'f.yaml')))
  } catch (error) {
    if (!(error instanceof BondsocksError)) t.fail(`${(error as Error).stack} for ${JSON.stringify(text)}`)
    else for (const line of error.message.split('\n')) t.match(line, /^f\.yaml:[1-9]\d*:[1-9]\d*: ./)
  }
}

const keys = [
  'lan',
  'wans',
  'hags',
  'listen',
  'clients',
  'interfaces',
  'name',
  'address',
  'port',
  'bypass',
  'allow',
  '__proto__',
  'constructor',
]
const scalar = fc.oneof(
  fc.string(),
  fc.integer(),
  fc.double(),
  fc.boolean(),
  fc.constantFrom(null, '10.0.0.0/8', '203.0.113.3', 'br0', ''),
)
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    scalar,
    fc.array(tie('tree'), { maxLength: 3 }),
    fc
      .array(fc.tuple(fc.oneof(fc.constantFrom(...keys), fc.string()), tie('tree')), { maxLength: 4 })
      .map((pairs) => new Map(pairs)),
  ),
}))

t.test('any text', async () => fc.assert(fc.property(fc.string(), outcome), { numRuns: 500 }))

t.test('any YAML', async () =>
  fc.assert(
    fc.property(tree, (value) => outcome(stringify(value))),
    { numRuns: 500 },
  ),
)

const examples = ['gateway', 'hag'].map((kind) => readFileSync(join(import.meta.dirname, `../../config/${kind}.yaml`), 'utf8'))
t.test('the examples, damaged', async () =>
  fc.assert(
    fc.property(fc.constantFrom(...examples), fc.nat(), fc.nat(40), fc.string({ maxLength: 12 }), (text, at, count, insert) => {
      const place = at % text.length
      outcome(text.slice(0, place) + insert + text.slice(place + count))
    }),
    { numRuns: 300 },
  ),
)

t.test('alias bombs, tags, several documents', async () => {
  for (const text of [
    'a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nlan: [*c,*c,*c]\n',
    'lan: *nowhere\n',
    'lan: &x {interfaces: *x}\nwans: *x\n',
    'lan: !!js/function x\n',
    'lan: {}\n---\nlan: {}\n',
    '? [a, b]\n: c\nlan: 1\n',
    '\u0000',
    '{lan: {interfaces: [br0]}, <<: {wans: 1}}',
  ]) {
    outcome(text)
  }
})

t.test('a word with one slip is found again', async (t) => {
  const words = ['gateway', 'interfaces', 'bypass', 'drain_seconds', 'password_file']
  fc.assert(
    fc.property(fc.constantFrom(...words), fc.nat(), fc.constantFrom('drop', 'double', 'swap'), (word, at, slip) => {
      const place = at % (word.length - 1)
      const [before, here, next, after] = [word.slice(0, place), word[place], word[place + 1], word.slice(place + 2)]
      const wrong = {
        drop: before + next + after,
        double: before + here + here + next + after,
        swap: before + next + here + after,
      }[slip]
      t.equal(nearest(wrong, words), word)
    }),
  )
})
