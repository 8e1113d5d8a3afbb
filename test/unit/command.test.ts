import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import { startedInAdvance } from '../../src/network/kernel/command.js'
import { settle } from '../support/wait.js'

const children = () => readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8').trim().split(' ')
const pidOf = (text: string) => Number(/pid (\d+)/.exec(text)?.[1])

t.test('a program that was started in advance', async (t) => {
  const run = startedInAdvance('sh', ['-c', 'cat; echo pid $$'])
  const first = await run('one\n')
  t.match(first, { code: 0, stdout: /^one\npid \d+\n$/, stderr: '' })
  const [second, third] = await Promise.all([run('two\n'), run('three\n')])
  t.match(second, { code: 0, stdout: /^two\n/ })
  t.match(third, { code: 0, stdout: /^three\n/ })
  t.equal(new Set([first, second, third].map(({ stdout }) => pidOf(stdout))).size, 3, 'each has one of its own')
})

t.test('one that ended while it waited is not missed', async (t) => {
  const others = children()
  const run = startedInAdvance('timeout', ['0.3', 'cat'])
  const own = () => children().filter((pid) => !others.includes(pid))
  t.equal((await settle(own, ({ length }) => length === 1)).length, 1, 'it runs')
  t.same(await settle(own, ({ length }) => length === 0), [], 'and has ended')
  t.match(await run('still\n'), { code: 0, stdout: 'still\n' })
})

t.test('a failure and a program that is not there are said', async (t) => {
  t.match(await startedInAdvance('sh', ['-c', 'cat >&2; exit 3'])('bad\n'), { code: 3, stderr: 'bad\n' })
  t.match(await startedInAdvance('bondsocks-is-not-this', [])('x'), { code: 127, stderr: /is not installed/ })
})

t.test('what waits keeps nobody awake, and does not outlive us', async (t) => {
  const script = `import { startedInAdvance } from ${JSON.stringify(new URL('../../src/network/kernel/command.ts', import.meta.url).href)}
    await startedInAdvance('sh', ['-c', 'echo pid $$; cat'])('x').then(({ stdout }) => console.log(stdout))
    const { execFileSync } = await import('node:child_process')
    const children = () => execFileSync('ps', ['-o', 'pid=,comm=', '--ppid', String(process.pid)]).toString()
    for (let tries = 0; tries < 100 && !children().includes(' sh'); tries++) await new Promise((resolve) => setTimeout(resolve, 50))
    console.log('children', children())`
  const { stdout } = await promisify(execFile)(process.execPath, ['--import=tsx', '--input-type=module', '--eval', script], {
    timeout: 15_000,
  })
  const waiting = Number(/(\d+) sh/.exec(stdout)?.[1])
  t.ok(waiting > 0, stdout)
  const lives = () => existsSync(`/proc/${waiting}`)
  t.notOk(await settle(lives, (isThere) => !isThere))
})

t.test('no descriptor is left', async (t) => {
  const script = `import { execFileSync } from 'node:child_process'
    import { runCommand, startedInAdvance, streamCommand } from ${JSON.stringify(new URL('../../src/network/kernel/command.ts', import.meta.url).href)}
    process.on('uncaughtException', () => {})
    const run = startedInAdvance('cat', [])
    execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=4:'])
    const [waited, next, alone] = [await run('one'), await run('two'), await runCommand(['true'])]
    console.log(JSON.stringify({ waited, next, alone, stream: await streamCommand(['true'], () => {}, AbortSignal.timeout(5000)) }))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--import=tsx', '--input-type=module', '--eval', script], {
    timeout: 15_000,
  })
  const said = / cannot be started: no descriptor is left$/
  t.match(JSON.parse(stdout), {
    waited: { code: 0, stdout: 'one' },
    next: { code: 1, stderr: said },
    alone: { code: 1, stderr: said },
    stream: said,
  })
})
