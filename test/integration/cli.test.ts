/** What needs no network: help, the wrong use, and `check`. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { outcome } from '../support/outcome.js'
import { bondsocks } from '../support/process.js'

const root = join(import.meta.dirname, '../..')
const names = ['run', 'hag', 'check', 'plan', 'apply', 'remove', 'lab']

t.test('--help lists every command, and every command has its own', async (t) => {
  const { code, stdout, stderr } = await outcome(bondsocks('--help'))
  t.equal(code, 0)
  t.equal(stderr, '')
  for (const name of names) {
    t.match(stdout, new RegExp(`^  ${name} `, 'm'))
    const own = await outcome(bondsocks(name, '--help'))
    t.equal(own.code, 0, name)
    t.match(own.stdout, new RegExp(`^Usage: bondsocks ${name}`))
    t.equal(own.stderr, '')
  }
})

t.test('--version', async (t) => {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  t.same(await outcome(bondsocks('--version')), { code: 0, stdout: `${version}\n`, stderr: '' })
})

const wrong: [string[], string][] = [
  [['chek', 'x'], 'bondsocks: there is no command `chek`, did you mean `check`?\n'],
  [['frobnicate'], 'bondsocks: there is no command `frobnicate`\n'],
  [['--frobnicate'], 'bondsocks: there is no option `--frobnicate`\n'],
  [['check'], 'bondsocks: which config? Say -c FILE\n'],
  [['lab'], 'bondsocks: lab: what? up, down, list, shell, run\n'],
  [['check', 'a', 'b'], 'bondsocks: check does not take `b`; see `bondsocks check --help`\n'],
  [['run', 'x.yaml'], 'bondsocks: run does not take `x.yaml`; see `bondsocks run --help`\n'],
  [['run'], 'bondsocks: which config? Say -c FILE\n'],
  [['plan', '--jason'], 'bondsocks: plan has no option `--jason`, did you mean `--json`?; see `bondsocks plan --help`\n'],
  [['run', '-c'], "bondsocks: run: Option '-c, --config <value>' argument missing\n"],
  [['run', '-c', '/nonexistent.yaml'], '/nonexistent.yaml: cannot be read: no such file\n'],
]
for (const [args, stderr] of wrong) {
  t.test(`wrong use: ${args.join(' ')}`, async (t) => {
    t.same(await outcome(bondsocks(...args)), { code: 2, stdout: '', stderr })
  })
}

t.test('no command at all prints the help', async (t) => {
  const { code, stdout, stderr } = await outcome(bondsocks())
  t.equal(code, 2)
  t.equal(stdout, '')
  t.match(stderr, /^Usage: bondsocks COMMAND/)
})

t.test('check says which kind it is, or what is wrong', async (t) => {
  for (const kind of ['gateway', 'hag']) {
    const file = join(root, `config/${kind}.yaml`)
    for (const args of [[file], ['-c', file]])
      t.same(await outcome(bondsocks('check', ...args)), { code: 0, stdout: `${file}: ${kind} config, valid\n`, stderr: '' })
  }
  const file = join(t.testdir({ 'x.yaml': 'clients: [10.0.0.0/33]\nlisten: {adress: 203.0.113.3}\n' }), 'x.yaml')
  t.same(await outcome(bondsocks('check', file)), {
    code: 2,
    stdout: '',
    stderr:
      `${file}:1:11: clients[0]: "10.0.0.0/33" is no network: write address/prefix, for instance 10.0.0.0/8\n` +
      `${file}:2:9: listen.address: is required\n` +
      `${file}:2:10: listen: unknown key \`adress\`, did you mean \`address\`?\n`,
  })
})
