/** A log that cannot be written keeps no program from its work, nor from its end. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createNamespace, needsRoot } from '../support/namespaces.js'
import { bondsocks, cleanEnvironment } from '../support/process.js'
import { settle } from '../support/wait.js'

const places: [string, (folder: string) => number][] = [
  ['a full disk', () => openSync('/dev/full', 'w')],
  [
    'a pipe that nobody reads any more',
    (folder) => {
      const path = join(folder, 'pipe')
      execFileSync('mkfifo', [path])
      const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
      for (const size of [4096, 1]) {
        try {
          for (;;) writeSync(fd, 'x'.repeat(size))
        } catch {
          // Full.
        }
      }
      return fd
    },
  ],
]

for (const [what, open] of places) {
  t.test(`${what} as its log`, { skip: needsRoot }, async (t) => {
    const host = await createNamespace(t, 'hag')
    const folder = t.testdir({})
    const config = join(folder, 'hag.yaml')
    writeFileSync(config, JSON.stringify({ listen: { address: '127.0.0.1' }, clients: ['127.0.0.0/8'], drain_seconds: 0 }))
    const log = open(folder)
    t.teardown(() => closeSync(log))
    const [file = '', ...rest] = host.argv(...bondsocks('hag', '-c', config))
    const hag = spawn(file, rest, { stdio: ['ignore', log, 'inherit'], env: cleanEnvironment() })
    t.teardown(() => hag.kill('SIGKILL'))
    const exit = once(hag, 'exit')
    const listening = await settle(
      () => host.exec('ss', '-ltnH'),
      (text) => text.includes(':1080'),
    )
    t.match(listening, /:1080/)
    const startedAt = Date.now()
    hag.kill('SIGTERM')
    const killed = setTimeout(() => hag.kill('SIGKILL'), 15_000)
    t.same(await exit, [0, null])
    clearTimeout(killed)
    t.comment(`after ${Date.now() - startedAt} ms`)
  })
}
