/**
 * What must work on every kernel, once each, in a lab whose lines netem makes. Whether it works, not how fast: the virtual machines of
 * scripts/test-kernel have slow processors.
 */
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { execute, must } from '../../src/lab/commands.js'
import { filePort } from '../../src/lab/download.js'
import { sha256Of, streamOf } from '../../src/lab/files.js'
import { labUp } from '../../src/lab/lab.js'
import { requireIntact, requireMptcp, startStream } from '../../src/lab/measure.js'
import { putMiddlebox, takeMiddlebox } from '../../src/lab/middlebox.js'
import { nodeArgv } from '../../src/lab/node.js'
import type { LabProgram } from '../../src/lab/program.js'
import { Stage } from '../../src/lab/scenario.js'
import { now } from '../../src/lab/traffic.js'
import { measureLine } from '../support/line.js'
import { snapshot } from '../support/snapshot.js'

const megabytes = { down: 10, up: 3 }
/** Twice as long as it takes; then what was logged is still to be seen. */
const limitMs = 200_000
const slow = 4
/** Where ten seconds would do. */
const patienceMs = 40_000

let failures = 0

function check(holds: boolean, what: string, detail = ''): void {
  if (!holds) failures++
  const more = holds || detail === '' ? '' : `\n${detail}`
  console.log(`${holds ? 'ok    ' : 'NOT OK'} ${what} (${(performance.now() / 1000).toFixed(0)} s)${more}`)
}

const lab = await labUp({ topology: 'hybrid', slow })
// What it finds missing is judged in the end.
const interruption = new AbortController()
const stage = new Stage(lab, interruption.signal)
const wans = lab.wans.map(({ name }) => name)
const lan = (...argv: string[]) => execute(lab.argv('lan', argv))
const url = (bytes: number) => `http://${lab.addresses.server}:${filePort}/${bytes}`

const limit = setTimeout(() => interruption.abort(new Error(`not done within ${limitMs / 1000} s`)), limitMs)
try {
  check(lab.links === 'netem', 'netem makes the lines', lab.links)
  await Promise.race([checkAll(), once(interruption.signal, 'abort').then(() => interruption.signal.throwIfAborted())])
} catch (error) {
  check(false, 'nothing unexpected happens', (error as Error).stack)
} finally {
  clearTimeout(limit)
  if (failures > 0) stage.miss('see above')
  await stage.close()
  await lab.down()
}
process.exit(failures === 0 ? 0 : 1)

async function checkAll(): Promise<void> {
  await stage.startServer()
  await checkLines()
  await checkSetUp()
  await checkConnections()
}

/** Delay, queue and rate as planned. */
async function checkLines(): Promise<void> {
  for (const [index, segmentBytes] of [1448, 400].entries()) {
    const wan = lab.wans[index]
    if (wan === undefined) continue
    const line = await measureLine(lab, wan, 4, segmentBytes)
    const [minMs, fullMs] = [2 * wan.delayMs, 2 * wan.delayMs + 100]
    const isTimely = line.minMs >= minMs && line.minMs < minMs + 10 && line.maxMs > 0.8 * fullMs && line.maxMs < 1.2 * fullMs
    const holds = isTimely && Math.abs(line.rate / wan.rateDown - 1) < 0.05
    check(holds, `the line of ${wan.name} is as planned: ${JSON.stringify(line)}`)
  }
  await must(lab.argv('lan', ['ip', 'route', 'replace', 'default', 'via', lab.addresses.cpe]))
  await must(lab.argv('cpe', ['ip', 'route', 'del', 'default', 'dev', lab.wans[1]?.interface ?? '']))
}

async function machine(): Promise<string> {
  const text = await snapshot((...argv) => must(lab.argv('cpe', argv)))
  // Routes of IPv6 count down, and say how often they were used.
  return text.replaceAll(/ (expires \d+sec|users \d+)/g, '')
}

function difference(before: string, after: string): string {
  const only = (one: string, other: string, mark: string) => {
    const known = new Set(other.split('\n'))
    return one.split('\n').flatMap((line) => (known.has(line) ? [] : `  ${mark} ${line}`))
  }
  return [...only(before, after, '-'), ...only(after, before, '+')].join('\n')
}

/** `plan`, `apply`, again, `remove`, as typed. */
async function checkSetUp(): Promise<void> {
  const bondsocks = (...argv: string[]) => execute(lab.argv('cpe', [...nodeArgv('main'), ...argv]))
  const before = await machine()
  const applied = await bondsocks('apply', '-c', lab.configs.gateway)
  check(applied.code === 0 && /ip mptcp endpoint add/.test(applied.stdout), 'apply', applied.stderr)
  check((await machine()) !== before, 'it sets the network up')
  const again = await bondsocks('apply', '-c', lab.configs.gateway)
  check(
    again.code === 0 && again.stdout.startsWith('nothing to do'),
    'a second apply changes nothing',
    again.stdout + again.stderr,
  )
  const removed = await bondsocks('remove')
  check(removed.code === 0, 'remove', removed.stderr)
  const after = await machine()
  check(after === before, 'it leaves all as before', difference(before, after))
}

async function checkConnections(): Promise<void> {
  const before = await machine()
  const { gateway, hag } = await stage.startAll()
  await checkTransfer('down')
  await checkTransfer('up')
  await checkCuts(gateway)
  await checkMiddlebox(gateway)
  await checkHagKilled(gateway, hag)
  await gateway.end(patienceMs)
  check(gateway.logged(/network is as before/).length === 1, 'the gateway ends in order')
  const after = await machine()
  check(after === before, 'it leaves all as before', difference(before, after))
}

async function checkTransfer(direction: 'down' | 'up'): Promise<void> {
  const bytes = megabytes[direction] * 1e6
  const start = await lab.wanBytes()
  const startedAt = now()
  const isIntact = await (direction === 'down' ? download(bytes) : upload(bytes))
  const seconds = (now() - startedAt) / 1000
  const end = await lab.wanBytes()
  const shares = wans.map((wan) => ((end[wan]?.[direction] ?? 0) - (start[wan]?.[direction] ?? 0)) / bytes)
  const said = `${seconds.toFixed(1)} s, ${wans.map((wan, index) => `${wan} ${(100 * (shares[index] ?? 0)).toFixed(0)} %`).join(', ')}`
  check(isIntact, `${megabytes[direction]} MB ${direction} are intact: ${said}`)
  check(
    shares.every((share) => share > 1 / 7),
    'each WAN carries more than a seventh',
  )
}

async function download(bytes: number): Promise<boolean> {
  const { stdout } = await lan('sh', '-c', `curl -sS --fail ${url(bytes)} | sha256sum`)
  return stdout.startsWith(sha256Of(bytes))
}

async function upload(bytes: number): Promise<boolean> {
  const file = `/tmp/upload-${lab.name}`
  writeFileSync(file, Buffer.concat([...streamOf(bytes)]))
  try {
    const { stdout } = await lan('curl', '-sS', '--fail', '-H', 'Expect:', '--data-binary', `@${file}`, url(0))
    return stdout === sha256Of(bytes)
  } finally {
    rmSync(file)
  }
}

/** A stream outlives the loss of each WAN in turn, by its link and silently. */
async function checkCuts(gateway: LabProgram): Promise<void> {
  const stream = await startStream(stage, 1)
  await stage.sleep(2)
  for (const [what, wan, cut] of [
    ['unplugged', 'lte', (lost) => lab.carrier('lte', !lost)],
    // The first one is asked every second; what another one has lost is seen when it is needed.
    ['silent', 'dsl', (lost) => lab.blackHole('dsl', lost)],
  ] as const satisfies [string, string, (lost: boolean) => Promise<void>][]) {
    const cutAt = now()
    await cut(true)
    check((await gateway.awaitLog(new RegExp(`WAN ${wan} is down`), cutAt, patienceMs)) !== undefined, `${wan} is ${what}: said`)
    const { code, stdout } = await lan(
      'curl',
      '-sS',
      '--fail',
      '--max-time',
      '20',
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
      url(20_000),
    )
    check(code === 0 && stdout === '20000', 'a new connection works')
    const backAt = now()
    await cut(false)
    const isBack = new RegExp(`WAN ${wan} (is up|is in use again|answers again)`)
    check((await gateway.awaitLog(isBack, backAt, patienceMs)) !== undefined, `${wan} is back: said`)
  }
  const report = await stream.stop()
  requireIntact(stage, 'the stream', report)
  check(report.intact && report.ending === 'stopped', `a stream over it all loses nothing: ${report.bytes} bytes`, report.ending)
}

async function checkMiddlebox(gateway: LabProgram): Promise<void> {
  const strippedAt = now()
  await putMiddlebox(lab, 'strip-mptcp', 'dsl')
  const stream = await startStream(stage, 1)
  const noticed = await gateway.awaitLog(/WAN dsl carries no MPTCP/, strippedAt, patienceMs)
  check(noticed !== undefined, 'dsl strips MPTCP: said')
  check((await stream.stop()).intact, 'a stream loses nothing')
  const healedAt = now()
  await takeMiddlebox(lab)
  const healed = await gateway.awaitLog(/WAN dsl carries MPTCP again/, healedAt, patienceMs)
  check(healed !== undefined, 'and no longer: said')
}

async function checkHagKilled(gateway: LabProgram, hag: LabProgram): Promise<void> {
  const killedAt = now()
  hag.signal('SIGKILL')
  await hag.exited
  const noticed = await gateway.awaitLog(/HAG|direct/, killedAt, patienceMs)
  check(noticed !== undefined, `the HAG is killed: said: ${noticed?.message}`)
  const isIntact = async () => (await lan('curl', '-sS', '--fail', '--max-time', '20', '-o', '/dev/null', url(20_000))).code === 0
  check(await isIntact(), 'a new connection goes direct')
  const backAt = now()
  await stage.startHag()
  const back = await gateway.awaitLog(/HAG/, backAt, patienceMs)
  check(back !== undefined, `it is back: ${back?.message}`)
  const misses = stage.misses.length
  await requireMptcp(stage, 'a new stream', wans)
  check(stage.misses.length === misses, 'a new connection uses both WANs by MPTCP', stage.misses.at(-1))
}
