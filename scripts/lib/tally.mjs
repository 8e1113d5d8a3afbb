// Reads TAP from standard input, shows one line a test file, what failed and the figures that tests print (`# ...`), and ends with
// `N passed, N failed`, on top of what the arguments say had passed, failed and been skipped before. Exits 1 where anything failed.
// With a fifth argument, a folder: its file `status` will have the exit code of what runs beside the tests, and `log` what that said.
// With a fourth argument, a file: if few of the programs' tests failed, they are worth another run. Then it exits 3 instead, and the file has
// what is counted without them, and a line for each.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { Parser } from 'tap-parser'

/** More are no accident. */
const mostAgain = 3

const [passedBefore = 0, failedBefore = 0, skippedBefore = 0] = process.argv.slice(2, 5).map(Number)
const againFile = process.argv[5] || undefined
const besideFolder = process.argv[6]
const totals = { pass: passedBefore, fail: failedBefore, skip: skippedBefore, todo: 0 }
const parser = new Parser()
for (const kind of Object.keys(totals)) parser.on(kind, () => totals[kind]++)
parser.on('skip', ({ fullname, skip }) => console.log(`skipped: ${fullname}: ${skip}`))
parser.on('fail', ({ fullname, diag }) => {
  console.log(`FAILED: ${fullname}`)
  for (const [key, value] of Object.entries(diag ?? {})) {
    const text = typeof value === 'string' ? value.trimEnd() : inspect(value, { depth: 6, breakLength: 120 })
    console.log(`${key}: ${text}`.replace(/^/gm, '    '))
  }
})
parser.on('child', (file) => {
  const figures = (child) => {
    child.on('comment', (comment) => {
      const text = comment.trim()
      if (!/^# (Subtest|time|test count|failed|skip|todo)\b/.test(text)) console.log(`  ${text}`)
    })
    child.on('child', figures)
  }
  figures(file)
})
const failedSuites = []
const withoutFailed = { ...totals }
let before = { ...totals }
parser.on('assert', ({ ok, name, time }) => {
  console.log(`${ok ? 'ok    ' : 'NOT OK'} ${name} (${Math.round((time ?? 0) / 1000)} s)`)
  if (!ok) failedSuites.push(name)
  else for (const kind of Object.keys(totals)) withoutFailed[kind] += totals[kind] - before[kind]
  before = { ...totals }
})

process.stdin.pipe(parser).on('complete', (results) => {
  // A runner that broke off, or ran nothing, has not passed.
  if (results.count === 0 || (!results.ok && totals.fail === failedBefore)) {
    totals.fail++
    console.log(`FAILED: the test runner: ${results.bailout || 'it ended early, or ran no test'}`)
  }
  const isOfPrograms = (name) => /^test\/(integration|contract)\//.test(name)
  const areFew = failedSuites.length > 0 && failedSuites.length <= mostAgain
  if (againFile !== undefined && !results.bailout && areFew && failedSuites.every(isOfPrograms)) {
    const { pass, fail, skip, todo } = withoutFailed
    writeFileSync(againFile, [`${pass} ${fail} ${skip + todo}`, ...failedSuites, ''].join('\n'))
    process.exitCode = 3
    return
  }
  if (besideFolder !== undefined) countBeside(besideFolder)
  // Again at the end, where somebody with only the last lines of a log looks.
  for (const name of failedSuites) console.log(`NOT OK ${name}`)
  const skipped = totals.skip + totals.todo
  console.log(`\n${totals.pass} passed, ${totals.fail} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  process.exitCode = totals.fail > 0 ? 1 : 0
})

/** Its usual time is a third of the suites'. */
function countBeside(folder) {
  const status = join(folder, 'status')
  const pause = new Int32Array(new SharedArrayBuffer(4))
  for (let left = 1800; left > 0 && !existsSync(status); left--) Atomics.wait(pause, 0, 0, 1000)
  const code = existsSync(status) ? Number(readFileSync(status, 'utf8')) : Number.NaN
  process.stdout.write(`== beside the suites\n${readFileSync(join(folder, 'log'), 'utf8')}`)
  // It is skipped, and has printed the reason.
  if (code === 77) return
  totals[code === 0 ? 'pass' : 'fail']++
  if (code !== 0) console.log(`FAILED: what ran beside the suites: exit code ${code}`)
}
