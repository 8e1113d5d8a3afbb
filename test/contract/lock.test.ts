/** Locks on real files, in a folder of the test's. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isHagHere, joinHags, takeLock } from '../../src/network/lock.js'
import { needsAddon } from '../support/engine.js'
import { needsRoot } from '../support/namespaces.js'

const owner = process.getuid?.() ?? 0
const place = (t: Test) => ({ folder: join(t.testdir({}), 'run'), owner })

t.test('one holder at a time, and nothing is left', { skip: needsAddon }, async (t) => {
  const options = place(t)
  let holders = 0
  let maxHolders = 0
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      const { release } = await takeLock('network', 10_000, options)
      maxHolders = Math.max(maxHolders, ++holders)
      await new Promise((resolve) => setTimeout(resolve, 5))
      holders--
      release()
    }),
  )
  t.equal(maxHolders, 1)
  t.notOk(existsSync(options.folder))
})

t.test('a machine without /run gets one', { skip: needsAddon }, async (t) => {
  const { folder } = place(t)
  const lock = await takeLock('network', 100, { owner, folder: join(folder, 'none', 'bondsocks') })
  t.ok(existsSync(lock.path))
  lock.release()
})

t.test('nobody waits for ever, and it is said for whom', { skip: needsAddon }, async (t) => {
  const options = place(t)
  const first = await takeLock('network', 0, options)
  t.equal(statSync(options.folder).mode & 0o777, 0o711)
  t.equal(statSync(first.path).mode & 0o777, 0o600)
  t.equal(readFileSync(first.path, 'utf8'), `${process.pid}\n`)
  const startedAt = performance.now()
  await t.rejects(takeLock('network', 100, options), {
    code: 'LOCKED',
    message: `process ${process.pid} has been changing the network for 0.1 s: wait for its end, or end it`,
  })
  t.ok(performance.now() - startedAt < 5000)
  const other = await takeLock('gateway', 0, options)
  other.release()
  first.release()
  ;(await takeLock('network', 0, options)).release()
})

const wrong: [string, (folder: string) => void, RegExp][] = [
  ['a link in the place of the folder', (folder) => symlinkSync('/tmp', folder), /is not a folder of root's/],
  ['a file in the place of the folder', (folder) => writeFileSync(folder, ''), /is not a folder of root's/],
]
for (const [what, put, message] of wrong) {
  t.test(`${what} is refused`, { skip: needsAddon }, async (t) => {
    const options = place(t)
    put(options.folder)
    await t.rejects(takeLock('network', 100, options), { code: 'BAD_FOLDER', message })
  })
}

t.test('what is in the place of the file is refused', { skip: needsAddon }, async (t) => {
  const options = place(t)
  const { path, release } = await takeLock('network', 0, options)
  release()
  mkdirSync(options.folder)
  const target = join(options.folder, 'target')
  writeFileSync(target, 'precious')
  symlinkSync(target, path)
  await t.rejects(takeLock('network', 100, options), { code: 'BAD_FOLDER' })
  t.equal(readFileSync(target, 'utf8'), 'precious')
  rmSync(path)
  mkdirSync(path)
  await t.rejects(takeLock('network', 100, options), { code: 'BAD_FOLDER' })
  t.same(readdirSync(options.folder).length, 2)
})

t.test("another user's folder is refused", { skip: needsAddon }, async (t) => {
  const options = { ...place(t), owner: owner + 1 }
  await t.rejects(takeLock('network', 100, options), { code: 'BAD_FOLDER', message: /is not a folder of root's: delete it/ })
})

t.test('a full disk keeps nobody from a lock', { skip: needsAddon || needsRoot }, async (t) => {
  const options = place(t)
  mkdirSync(options.folder)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', options.folder])
  try {
    writeFileSync(join(options.folder, 'full'), 'x')
    for (const turn of [1, 2]) {
      const lock = await takeLock('network', 100, options)
      await t.rejects(takeLock('network', 100, options), { code: 'LOCKED', message: /^another process/ }, `turn ${turn}`)
      lock.release()
    }
  } finally {
    execFileSync('umount', [options.folder])
  }
})

t.test('of several HAGs one is the first, and one the last', { skip: needsAddon }, async (t) => {
  const options = place(t)
  t.equal(await isHagHere(options), false)
  const [one, two] = [await joinHags(options), await joinHags(options)]
  t.equal(await isHagHere(options), true)
  t.same([one.isFirst, two.isFirst], [true, false])
  t.equal(one.isLast(), false)
  one.release()
  const three = await joinHags(options)
  t.equal(three.isFirst, false)
  t.equal(three.isLast(), false, 'whoever says so has left')
  three.release()
  t.equal(two.isLast(), true)
  let hasJoined = false
  const next = joinHags(options).then((member) => {
    hasJoined = true
    return member
  })
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.equal(hasJoined, false, 'nobody comes while the last one takes away what it has changed')
  two.release()
  const four = await next
  t.equal(four.isFirst, true)
  four.isLast()
  four.release()
  t.equal(await isHagHere(options), false)
  t.notOk(existsSync(options.folder))
})
