/** Labs: made, used, changed, and removed, also after a crash. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import { type Lab, type LabOptions, labAttach, labDown, labList, labUp, type Topology } from '../../src/lab/lab.js'
import { settle } from '../support/hybrid.js'
import { needsRoot, needsTun, randomName, type Scope } from '../support/namespaces.js'

const run = promisify(execFile)
const skip = needsRoot

async function up(scope: Scope, topology: Topology, options: Partial<LabOptions> = {}): Promise<Lab> {
  const name = randomName()
  scope.teardown(() => labDown(name))
  return labUp({ topology, name, ...options })
}

/** The process that emulates its links. */
const linksOf = ({ name }: Lab) => Number(readFileSync(`/run/bondsocks/lab/${name}/links.pid`, 'utf8'))

/** Milliseconds until a TCP connection to a closed port is refused: one round trip; at most `maxMs`, if that can be had. */
async function roundTrip(lab: Lab, host: string, target: string, maxMs: number, timeoutMs = 10_000): Promise<number> {
  // The fastest of five to thirty: a busy machine makes some late, none early.
  const script = `
    const all = []
    const once = () => {
      const start = process.hrtime.bigint()
      require('net').connect(9, '${target}').on('error', ({ code }) => {
        all.push(Number(process.hrtime.bigint() - start) / 1e6)
        if ((all.length < 5 || (all.length < 30 && Math.min(...all) > ${maxMs})) && code === 'ECONNREFUSED') once()
        else console.log(code, Math.min(...all))
      })
    }
    once()`
  const { stdout } = await lab.exec(host, [process.execPath, '-e', script], { timeoutMs })
  const [code, milliseconds] = stdout.trim().split(' ')
  if (code !== 'ECONNREFUSED') throw new Error(`${target}: ${stdout}`)
  return Number(milliseconds)
}

const namespaces = async () => (await run('ip', ['netns', 'list'])).stdout

t.test('hybrid', { skip }, async (t) => {
  const lab = await up(t, 'hybrid')
  t.match(lab.wans, [
    { name: 'dsl', rateDown: 20, rateUp: 5, delayMs: 15, address4: '10.1.0.2', gateway4: '10.1.0.1' },
    { name: 'lte', rateDown: 30, rateUp: 10, delayMs: 35, address4: '10.2.0.2', gateway4: '10.2.0.1' },
  ])

  t.test('the LAN reaches the server over DSL, in both families', async (t) => {
    const before = await lab.wanBytes()
    for (const server of [lab.addresses.server, lab.addresses.server6]) {
      const milliseconds = await roundTrip(lab, 'lan', server, 60)
      t.ok(milliseconds >= 30 && milliseconds < 60, `${milliseconds} ms to ${server}; a round trip is 30`)
    }
    const after = await lab.wanBytes()
    t.ok((after.dsl?.down ?? 0) - (before.dsl?.down ?? 0) > 80, 'DSL carried the answers')
  })

  t.test('and the HAG is reached over LTE', async (t) => {
    const milliseconds = await roundTrip(lab, 'cpe', '10.2.0.1', 110)
    t.ok(milliseconds >= 70 && milliseconds < 110, `${milliseconds} ms; a round trip is 70`)
  })

  t.test('a changed delay counts at once, and a new Lab object knows it', async (t) => {
    await lab.setLink('dsl', { delayMs: 60 })
    t.equal((await labAttach(lab.name)).wans[0]?.delayMs, 60)
    const milliseconds = await roundTrip(lab, 'lan', lab.addresses.server, 160)
    t.ok(milliseconds >= 120 && milliseconds < 160, `${milliseconds} ms`)
    await (await labAttach(lab.name)).setLink('dsl', { delayMs: 15 })
  })

  t.test('a black hole loses everything, and afterwards nothing', async (t) => {
    await lab.blackHole('dsl', true)
    await t.rejects(roundTrip(lab, 'lan', lab.addresses.server, 60, 1500))
    await lab.blackHole('dsl', false)
    t.ok((await roundTrip(lab, 'lan', lab.addresses.server, 60)) < 60)
  })

  t.test('a pulled plug is seen by the CPE', async (t) => {
    const flags = async () => (await lab.exec('cpe', ['ip', '-j', 'link', 'show', 'dsl'])).stdout
    await lab.carrier('dsl', false)
    t.match(await settle(flags, (text) => text.includes('NO-CARRIER')), 'NO-CARRIER')
    await lab.carrier('dsl', true)
    t.notMatch(await settle(flags, (text) => !text.includes('NO-CARRIER')), 'NO-CARRIER')
  })

  t.test('wrong names are said', async (t) => {
    await t.rejects(lab.blackHole('dls', true), { code: 'USAGE', message: /no WAN dls; it has dsl, lte/ })
    await t.rejects(lab.exec('hga', ['true']), { code: 'USAGE', message: /no host hga; it has lan, cpe, hag, hag2, server/ })
    await t.rejects(labUp({ topology: 'hybrid', name: lab.name }), { code: 'LAB_EXISTS' })
    t.ok((await labList()).includes(lab.name), 'and the lab of that name is still there')
  })
})

t.test('a lab without shaping is fast', { skip }, async (t) => {
  const lab = await up(t, 'ethernet', { shaped: false })
  t.equal(lab.links, 'veth')
  t.ok((await roundTrip(lab, 'lan', lab.addresses.server, 20)) < 20)
  t.ok((await roundTrip(lab, 'cpe', '4.4.4.4', 20)) < 20, 'the HAG answers at 4.4.4.4')
  await t.rejects(lab.setLink('eth1', { delayMs: 5 }), { code: 'LAB_UNSHAPED' })
})

t.test('two routers: each address of the server by its own router', { skip }, async (t) => {
  const lab = await up(t, 'two-routers')
  for (const [wan, server] of [
    ['r1', '10.0.1.2'],
    ['r2', '192.168.1.2'],
  ] as const) {
    const before = await lab.wanBytes()
    const milliseconds = await roundTrip(lab, 'client', server, 200)
    t.ok(milliseconds >= 10 && milliseconds < 200, `${milliseconds} ms to ${server}; a round trip is 10`)
    const after = await lab.wanBytes()
    t.ok((after[wan]?.up ?? 0) > (before[wan]?.up ?? 0), `by ${wan}`)
  }
})

t.test('down takes everything away, whatever is left', { skip }, async (t) => {
  const lab = await up(t, 'hybrid')
  const sleeper = lab.exec('cpe', ['sleep', '60'])
  if (lab.links === 'emulator') process.kill(linksOf(lab), 'SIGKILL')
  await run('ip', ['netns', 'delete', lab.hosts.server ?? ''])
  await labDown(lab.name)
  t.not((await sleeper).code, 0, 'what ran in it has ended')
  t.notOk((await namespaces()).includes(lab.name))
  t.notOk(existsSync(`/run/bondsocks/lab/${lab.name}`))
  await labDown(lab.name)
  await t.rejects(labAttach(lab.name), { code: 'NO_LAB' })
})

t.test('emulated links end by themselves when the namespaces are gone', { skip: skip || needsTun }, async (t) => {
  const lab = await up(t, 'hybrid', { links: 'emulator' })
  const pid = linksOf(lab)
  for (const namespace of Object.values(lab.hosts)) await run('ip', ['netns', 'delete', namespace])
  t.notOk(
    await settle(
      () => existsSync(`/proc/${pid}`),
      (runs) => !runs,
    ),
  )
})

t.test('a name that is none', { skip }, async (t) => {
  await t.rejects(labUp({ topology: 'hybrid', name: '../x' }), { code: 'USAGE', exitCode: 2 })
})
