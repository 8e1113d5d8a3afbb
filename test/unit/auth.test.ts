import { chmodSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Users } from '../../src/server/auth.js'
import { memoryLog } from '../support/memory-log.js'

t.test('names and passwords', async (t) => {
  const file = join(t.testdir({ users: 'ann:open:sesame\nbob:pässword\n' }), 'users')
  chmodSync(file, 0o600)
  const users = new Users(file, memoryLog())
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
  const users = new Users(file, log, () => now)
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
