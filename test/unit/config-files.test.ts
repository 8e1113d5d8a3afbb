/** Reading a config and the secrets that it names: files that are not there, or not as they should be. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkConfig, loadGateway, loadHag } from '../../src/config/load.js'
import { readPassword, readUsers } from '../../src/config/secrets.js'
import type { Event } from '../../src/telemetry/events.js'
import { faults, minimal } from '../support/config.js'

t.test('files: not there, neither kind, relative secrets', async (t) => {
  const folder = t.testdir({ 'x.yaml': 'a: 1\n', 'g.yaml': `${minimal}    username: me\n    password_file: secret\n` })
  t.same(
    faults(() => checkConfig(join(folder, 'none.yaml'))),
    [`${folder}/none.yaml: cannot be read: no such file`],
  )
  t.same(
    faults(() => checkConfig(folder)),
    [`${folder}: cannot be read: is a folder`],
  )
  t.same(
    faults(() => checkConfig(join(folder, 'x.yaml'))),
    [`${folder}/x.yaml:1:1: is neither a gateway config (lan, wans, hags) nor a HAG config (listen.address, clients)`],
  )
  t.equal(loadGateway(join(folder, 'g.yaml')).hags[0]?.password_file, join(folder, 'secret'))
})

t.test('secrets', async (t) => {
  const folder = t.testdir({
    password: 'open sesame\nrest\n',
    empty: '\n',
    users: '# ours\nann:a:b\n\nbob:pw\r\n',
    wrong: 'ann\n',
    twice: 'ann:1\nann:2\n',
    none: '# nobody\n',
  })
  const exposed: Event[] = []
  const emit = (event: Event) => exposed.push(event)
  chmodSync(join(folder, 'password'), 0o600)
  t.equal(readPassword(join(folder, 'password'), emit), 'open sesame')
  t.same(exposed, [])
  chmodSync(join(folder, 'users'), 0o644)
  t.same(
    [...readUsers(join(folder, 'users'), emit)],
    [
      ['ann', 'a:b'],
      ['bob', 'pw'],
    ],
  )
  t.same(exposed, [{ type: 'secret-exposed', key: 'users_file', file: join(folder, 'users') }])
  const long = join(folder, 'long')
  writeFileSync(long, 'x'.repeat(256))
  mkdirSync(join(folder, 'dir'))
  const file = (name: string) => join(folder, name)
  for (const [name, text] of [
    ['empty', `password_file ${file('empty')} is empty: its first line must be the password`],
    ['long', `password_file ${long}: the password is longer than 255 bytes, which RFC 1929 does not allow`],
    ['missing', `password_file ${file('missing')} cannot be read: no such file`],
    ['dir', `password_file ${file('dir')} cannot be read: is a folder`],
  ] as const) {
    t.same(
      faults(() => readPassword(file(name), emit)),
      [text],
    )
  }
  for (const [name, text] of [
    ['wrong', `users_file ${file('wrong')}, line 1: write name:password`],
    ['twice', `users_file ${file('twice')}, line 2: the user "ann" is there twice`],
    ['none', `users_file ${file('none')} has no user: write lines of name:password`],
  ] as const) {
    t.same(
      faults(() => readUsers(file(name), emit)),
      [text],
    )
  }
})

t.test('files as editors of other systems write them', async (t) => {
  const folder = t.testdir({
    users: '\uFEFFann:sesame\r\nbob:pw\r\n',
    password: '\uFEFFsesame\r\n',
    'h.yaml': '\uFEFFlisten: {address: 203.0.113.3}\nclients: [10.0.0.0/8]\n',
  })
  const none = () => t.fail('no complaint')
  for (const name of ['users', 'password']) chmodSync(join(folder, name), 0o600)
  t.same(
    [...readUsers(join(folder, 'users'), none)],
    [
      ['ann', 'sesame'],
      ['bob', 'pw'],
    ],
  )
  t.equal(readPassword(join(folder, 'password'), none), 'sesame')
  t.same(
    faults(() => loadHag(join(folder, 'h.yaml'))),
    [],
  )
  writeFileSync(join(folder, 'users'), Buffer.from('\uFEFFann:sesame\n', 'utf16le'))
  t.throws(() => readUsers(join(folder, 'users'), none), { message: /cannot be read: it is UTF-16: save it as UTF-8/ })
})
