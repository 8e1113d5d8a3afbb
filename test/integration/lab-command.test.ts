/** `bondsocks lab`, as typed. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { labAttach, labDown } from '../../src/lab/lab.js'
import { needsRoot, randomName } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'
import { bondsocks, start } from '../support/process.js'

const namespaces = async () => (await promisify(execFile)('ip', ['netns', 'list'])).stdout

t.test('up, list, shell, down', { skip: needsRoot }, async (t) => {
  const name = randomName()
  t.teardown(() => labDown(name))
  const up = await outcome(bondsocks('lab', 'up', '--name', name, '--slow', '4'))
  t.match(up, { code: 0, stderr: '' })
  t.match(up.stdout, /^ {2}dsl +5\/1\.25 Mbit\/s, 15 ms one way/m, 'the rates are divided')
  t.equal((await labAttach(name)).wans[0]?.rateDown, 5, 'for who uses it later, too')
  t.match(up.stdout, new RegExp(`^lab ${name}: hybrid`))
  t.match(up.stdout, /lab shell server .* then: any TCP server/, 'its server serves nothing by itself')
  t.match(await namespaces(), `bs-${name}-cpe`)
  t.match((await outcome(bondsocks('lab', 'list'))).stdout, new RegExp(`^${name}  hybrid`, 'm'))

  const shell = ['sh', '-c', 'echo ip route show default | "$@"', 'sh', ...bondsocks('lab', 'shell', 'lan', '--name', name)]
  t.match((await outcome(shell)).stdout, 'default via 192.168.1.1')
  t.match(await outcome(bondsocks('lab', 'up', '--name', name)), {
    code: 1,
    stderr: /^bondsocks: there is a lab .* already.*\n$/,
  })
  t.match(await outcome(bondsocks('lab', 'shell', 'hga', '--name', name)), { code: 2, stderr: /no host hga; it has lan, cpe/ })

  t.same(await outcome(bondsocks('lab', 'down', name)), { code: 0, stdout: `removed: ${name}\n`, stderr: '' })
  t.notMatch(await namespaces(), name)
  t.match(await outcome(bondsocks('lab', 'shell', 'lan', '--name', name)), { code: 1, stderr: /^bondsocks: there is no lab / })
})

t.test('an interrupted scenario leaves nothing', { skip: needsRoot }, async (t) => {
  const demo = start(t, bondsocks('lab', 'run', 'failover'))
  const name = (await demo.waitFor(/^lab (\w+): hybrid/))[1] ?? ''
  t.teardown(() => labDown(name))
  await demo.waitFor(/ 1 s .*Mbit\/s/, 30_000)
  t.match(await namespaces(), name)
  t.same(await demo.end('SIGINT'), { code: 1, signal: null })
  t.match(demo.output, /bondsocks: interrupted; all is removed\n$/)
  t.notMatch(await namespaces(), name)
})

const wrong: [string[], RegExp][] = [
  [['up', 'hybird'], /^bondsocks: there is no topology hybird: take one of hybrid, ethernet, two-routers\n$/],
  [['run', 'bnd'], /^bondsocks: there is no scenario `bnd`: did you mean `bond`\?\n$/],
  [['run'], /^bondsocks: lab run: which scenario\? bond, /],
  [['dwn'], /^bondsocks: lab cannot `dwn`: did you mean `down`\?\n$/],
  [['up', '--slow', '0'], /^bondsocks: lab: --slow takes a number from 1 to 999\n$/],
  [['down', '../x'], /^bondsocks: \.\.\/x is no name for a lab/],
]
for (const [args, stderr] of wrong) {
  t.test(`wrong use: lab ${args.join(' ')}`, { skip: needsRoot }, async (t) => {
    t.match(await outcome(bondsocks('lab', ...args)), { code: 2, stdout: '', stderr })
  })
}

t.test('not root', { skip: needsRoot }, async (t) => {
  for (const args of [['up'], ['list'], ['down', '--all'], ['shell', 'lan']]) {
    const argv = ['env', '-i', 'setpriv', '--reuid', '65534', '--clear-groups', ...bondsocks('lab', ...args)]
    const stderr = /^bondsocks: the lab makes network namespaces, which only root may.*\n$/
    t.match(await outcome(argv), { code: 1, stdout: '', stderr }, args.join(' '))
  }
})
