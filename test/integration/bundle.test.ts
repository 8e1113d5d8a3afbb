/** What an image takes along: dist/, the addon and package.json; no library is installed beside them. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createNamespace, needsRoot } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'
import { start } from '../support/process.js'

const root = join(import.meta.dirname, '../..')

t.test('the programs run from a folder with nothing else', { skip: needsRoot }, async (t) => {
  // Not below the checkout, where Node would find its libraries.
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-test-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'hag.yaml'), 'listen: {address: 127.0.0.1}\nclients: [127.0.0.0/8]\n')
  for (const part of ['dist', 'build/bondsocks.node', 'package.json']) {
    cpSync(join(root, part), join(folder, part), { recursive: true })
  }
  const bondsocks = (...words: string[]) => [process.execPath, join(folder, 'dist/main.js'), ...words]
  for (const name of ['run', 'hag', 'check', 'plan', 'apply', 'status', 'monitor', 'remove', 'lab']) {
    t.match(await outcome(bondsocks(name, '--help')), { code: 0, stderr: '' }, name)
  }
  const namespace = await createNamespace(t)
  for (const name of ['apply', 'plan']) {
    const found = await outcome(namespace.argv(...bondsocks(name, '-c', join(root, 'config/gateway.yaml'))))
    t.match(
      found,
      { code: 0, stdout: /WAN dsl is down: interface dsl does not exist/, stderr: '' },
      'the gateway looks at its network',
    )
  }
  const hag = start(t, namespace.argv(...bondsocks('hag', '-c', join(folder, 'hag.yaml'))))
  await hag.waitFor(/HAG listens/)
  t.same(await hag.end(), { code: 0, signal: null }, 'the engine')
})

t.test('with the licences of what is in it', async (t) => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  const licences = readFileSync(join(root, 'dist/LICENSES'), 'utf8')
  for (const [name, version] of Object.entries(dependencies)) t.ok(licences.includes(`${name} ${version} (`), name)
})
