/** What counts in a run of all tests: which failures are worth another run, and that none is lost. */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'

/** TAP of test files, each with the outcomes of its assertions. */
const tapOf = (files: readonly (readonly [name: string, ...outcomes: boolean[]])[]) =>
  [
    'TAP version 14',
    ...files.flatMap(([name, ...outcomes], index) => [
      `# Subtest: ${name}`,
      ...outcomes.map((ok, count) => `    ${ok ? 'ok' : 'not ok'} ${count + 1} - it holds`),
      `    1..${outcomes.length}`,
      `${outcomes.every(Boolean) ? 'ok' : 'not ok'} ${index + 1} - ${name} # time=1000ms`,
    ]),
    `1..${files.length}`,
    '',
  ].join('\n')

function tally(t: Test, files: Parameters<typeof tapOf>[0], before: readonly number[] = [7, 0, 0]) {
  const again = join(t.testdir({}), 'again')
  writeFileSync(again, '')
  const input = tapOf(files)
  const { status, stdout } = spawnSync(process.execPath, ['scripts/lib/tally.mjs', ...before.map(String), again], {
    input,
    encoding: 'utf8',
  })
  return { status, last: stdout.trimEnd().split('\n').at(-1), again: readFileSync(again, 'utf8') }
}

t.test('all pass', async (t) => {
  t.same(tally(t, [['test/integration/a.test.ts', true, true]]), { status: 0, last: '9 passed, 0 failed', again: '' })
})

t.test('few tests of the programs fail: they are left out of the count, and to be run once more', async (t) => {
  const { status, last, again } = tally(t, [
    ['test/integration/a.test.ts', true, false, false],
    ['test/unit/b.test.ts', true, true],
    ['test/contract/c.test.ts', false],
  ])
  t.equal(status, 3)
  t.notMatch(last, /passed/)
  t.equal(again, '9 0 0\ntest/integration/a.test.ts\ntest/contract/c.test.ts\n')
})

t.test('what failed before them still counts', async (t) => {
  t.match(tally(t, [['test/integration/a.test.ts', false]], [7, 1, 2]), { status: 3, again: /^7 1 2\n/ })
  t.match(tally(t, [['test/integration/a.test.ts', true]], [7, 1, 2]), { status: 1, last: '8 passed, 1 failed, 2 skipped' })
})

t.test('a unit test that fails is wrong at once', async (t) => {
  const files = [
    ['test/integration/a.test.ts', false],
    ['test/unit/b.test.ts', false],
  ] as const
  t.match(tally(t, files), { status: 1, last: '7 passed, 2 failed', again: '' })
})

t.test('many failures are no accident', async (t) => {
  const files = ['a', 'b', 'c', 'd'].map((name) => [`test/integration/${name}.test.ts`, false] as const)
  t.match(tally(t, files), { status: 1, last: '7 passed, 4 failed', again: '' })
})

t.test('a runner that breaks off has not passed', async (t) => {
  t.match(tally(t, []), { status: 1, again: '' })
})

t.test('what runs beside the suites counts once, by its exit code', async (t) => {
  const beside = (status: string) => t.testdir({ status, log: 'it said so\n' })
  const run = (status: string) => {
    const args = ['scripts/lib/tally.mjs', '7', '0', '0', '', beside(status)]
    const { stdout } = spawnSync(process.execPath, args, { input: tapOf([['test/unit/a.test.ts', true]]), encoding: 'utf8' })
    return stdout
  }
  t.match(run('0\n'), /== beside the suites\nit said so\n\n9 passed, 0 failed\n$/)
  t.match(run('1\n'), /FAILED: what ran beside the suites: exit code 1\n\n8 passed, 1 failed\n$/)
  t.match(run('77\n'), /it said so\n\n8 passed, 0 failed\n$/, 'skipped')
})
