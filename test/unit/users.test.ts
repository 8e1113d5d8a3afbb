import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Users } from '../../src/hag/users.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'

t.test('names and passwords', async (t) => {
  const file = join(t.testdir({ users: 'ann:open:sesame\nbob:pässword\n' }), 'users')
  chmodSync(file, 0o600)
  const users = new Users(file, toLog(memoryLog()))
  t.equal(users.accepts('ann', 'open:sesame'), true)
  t.equal(users.accepts('bob', 'pässword'), true)
  for (const [name, password] of [
    ['ann', 'open'],
    ['ann', ''],
    ['ann', 'pässword'],
    ['carl', 'open:sesame'],
    ['', ''],
    ['__proto__', ''],
  ] as const) {
    t.equal(users.accepts(name, password), false, `${name} ${password}`)
  }
})

t.test('a changed file counts; a faulty one does not lock everybody out', async (t) => {
  const file = join(t.testdir({ users: 'ann:1\n' }), 'users')
  chmodSync(file, 0o600)
  const log = memoryLog()
  let now = 0
  const users = new Users(file, toLog(log), () => now)
  const change = (text: string) => {
    writeFileSync(file, text)
    now += 2001
    utimesSync(file, now, now)
  }
  change('ann:2\ncarl:3\n')
  t.equal(users.accepts('ann', '1'), false)
  t.equal(users.accepts('ann', '2'), true)
  change('no colon\n')
  t.equal(users.accepts('carl', '3'), true)
  t.same(log.lines, [
    `info users_file ${file} read again: 2 users`,
    `warn users_file ${file}, line 1: write name:password; the former users stay`,
  ])
})

/** What may come in the place of a file of users; each gives the reason that the log has. */
const troubles: [string, (file: string) => void, RegExp][] = [
  ['nothing', () => {}, /no such file/],
  ['a symlink loop', (file) => symlinkSync(file, file), /ELOOP/],
  ['a link into nothing', (file) => symlinkSync('/nonexistent/users', file), /no such file/],
  ['a link through a file', (file) => symlinkSync('/etc/passwd/users', file), /ENOTDIR|no such file/],
  ['a folder', (file) => mkdirSync(file), /is no file/],
  ['a pipe', (file) => execFileSync('mkfifo', [file]), /is no file/],
  ['a device without end', (file) => symlinkSync('/dev/zero', file), /is no file/],
  ['an empty file', (file) => writeFileSync(file, '', { mode: 0o600 }), /has no user/],
  [
    'a file that is too large',
    (file) => {
      writeFileSync(file, '')
      truncateSync(file, 8e9)
    },
    /no file of at most/,
  ],
]
for (const [what, put, reason] of troubles) {
  t.test(`${what} instead of the file: the former users stay, until there is one again`, async (t) => {
    const file = join(t.testdir({ users: 'ann:1\n' }), 'users')
    chmodSync(file, 0o600)
    const log = memoryLog()
    let now = 0
    const users = new Users(file, toLog(log), () => now)
    const accepts = (name: string, password: string) => {
      now += 2001
      return users.accepts(name, password)
    }
    renameSync(file, `${file}.old`)
    put(file)
    for (let login = 0; login < 3; login++) t.equal(accepts('ann', '1'), true)
    t.equal(accepts('ann', '2'), false)
    t.match(log.lines, [reason], 'said once')
    t.match(log.lines[0], /; the former users stay$/)
    rmSync(file, { recursive: true, force: true })
    writeFileSync(file, 'ann:2\n', { mode: 0o600 })
    t.equal(accepts('ann', '2'), true)
  })
}

t.test('a changed file that could not be opened for want of descriptors is read later', async (t) => {
  const file = join(t.testdir({ users: 'ann:1\n' }), 'users')
  chmodSync(file, 0o600)
  const log = memoryLog()
  let now = 0
  const users = new Users(file, toLog(log), () => now)
  writeFileSync(file, 'ann:2\nbob:1\n')
  const taken: number[] = []
  t.throws(() => {
    for (;;) taken.push(openSync('/dev/null', 'r'))
  }, /EMFILE/)
  now += 2001
  const before = users.accepts('ann', '1')
  for (const fd of taken) closeSync(fd)
  t.equal(before, true)
  now += 2001
  t.equal(users.accepts('ann', '2'), true)
  t.match(log.lines, [/EMFILE; the former users stay/, /read again: 2 users/])
})
