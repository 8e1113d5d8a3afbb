/** The soak: the real programs in the `hybrid` lab under load, hostile clients and faults at once, and what must hold all the time. */

import { startAgent } from '../support/agent.js'
import { sleep, World } from '../support/hybrid.js'
import type { Scope } from '../support/namespaces.js'
import { countDescriptors, privateMemory } from '../support/proc.js'
import type { Program } from '../support/process.js'
import { Chaos, hagKeys } from './chaos.js'
import type { Outcome } from './load.js'
import { Chance } from './random.js'
import { judge } from './verdict.js'

export interface SoakOptions {
  minutes: number
  seed: number
  say?: (line: string) => void
}

export interface SoakReport {
  /** The lines of a table. */
  summary: string[]
  /** Empty: nothing was wrong. */
  violations: string[]
}

const serverPort = 9100
/** The time between two calms; in a calm there is no load, and resources are measured. */
const stretchMs = 80_000
/** How much private memory may grow from the first calm to the last, because V8 returns memory when it likes. */
const memoryMb = 12
/** How many descriptors may be added from the first calm to the last: for prepared connections, and for the pipes in the pools. */
const descriptors = 60
/** How many lines a program may log each minute at the info level: some for each fault, and some about strangers. */
const linesPerMinute = 60

interface Calm {
  at: number
  pid: Record<'gateway' | 'hag', number>
  memoryMb: Record<'gateway' | 'hag', number>
  descriptors: Record<'gateway' | 'hag', number>
  lines: Record<'gateway' | 'hag', number>
}
const programs = ['gateway', 'hag'] as const

export async function soak(scope: Scope, { minutes, seed, say = () => {} }: SoakOptions): Promise<SoakReport> {
  const violations: string[] = []
  const world = await World.create(scope, { hag: hagKeys, gateway: { log_level: 'debug' } })
  const { lab, client, server } = world
  await server.call('soakServer', serverPort)
  /** The last one runs. */
  const hags = [await world.startHag()]
  const hag = () => hags.at(-1) as Program
  const gateway = await world.startGateway()
  const agentIn = (host: string) => startAgent(scope, { argv: (...argv) => lab.argv(host, argv) })
  const [inLan, atHag, atCpe] = await Promise.all([agentIn('lan'), agentIn('hag'), agentIn('cpe')])
  const target = { host: lab.addresses.server, port: serverPort }
  const hagAt = { host: lab.addresses.hag, port: 1080 }

  const linesOf = (all: readonly Program[]) =>
    all.flatMap(({ output }) => output.match(/^(?!.*"level":"debug").+$/gm) ?? []).length
  const chaos = new Chaos(
    world,
    new Chance(seed + 1),
    hag(),
    (next) => hags.push(next),
    (what) => say(`${clock()} ${what}`),
  )
  const begun = Date.now()
  const clock = () => `${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s `
  const outcomes: Outcome[] = []

  const stretch = async (ms: number) => {
    await client.call('soakLoad', { ...target, seed })
    await inLan.call('soakHostile', { seed: seed + 2, server: target, redirector: { host: lab.addresses.cpe, port: 12345 } })
    await server.call('soakHostile', { seed: seed + 3, hag: hagAt })
    await atHag.call('soakHostile', { seed: seed + 4, redirector: { host: '10.1.0.2', port: 12345 } })
    await atCpe.call('soakHostile', { seed: seed + 5, hag: hagAt })
    const faults = chaos.run()
    await sleep(ms)
    chaos.stop()
    await faults
    const left = await client.call('soakPause')
    if (left > 0) violations.push(`${clock()}: ${left} requests are neither answered nor reset`)
    outcomes.push(...(await client.call('soakOutcomes')))
  }
  const peace = async () => Promise.all([inLan, server, atHag, atCpe].map((agent) => agent.call('soakPeace')))
  const calms: Calm[] = []
  const measure = async () => {
    const both = { gateway, hag: hag() }
    const each = (ask: (program: Program) => number) => ({ gateway: ask(both.gateway), hag: ask(both.hag) })
    await sleep(3000)
    const open = []
    // Probes open and close sockets meanwhile, so the smallest count is taken.
    for (let i = 0; i < 20; i++) {
      open.push(each(({ pid }) => countDescriptors(pid)))
      await sleep(50)
    }
    calms.push({
      at: Date.now(),
      pid: each(({ pid }) => pid),
      memoryMb: each(({ pid }) => privateMemory(pid) / 2 ** 20),
      descriptors: {
        gateway: Math.min(...open.map((one) => one.gateway)),
        hag: Math.min(...open.map((one) => one.hag)),
      },
      lines: { gateway: linesOf([gateway]), hag: linesOf(hags) },
    })
    const last = calms.at(-1) as Calm
    say(
      `${clock()} calm: ${programs.map((name) => `${name} ${last.memoryMb[name].toFixed(1)} MB private, ${last.descriptors[name]} descriptors, ${last.lines[name]} lines`).join('; ')}`,
    )
  }

  const totalMs = minutes * 60_000
  const warmMs = Math.min(totalMs / 3, 60_000)
  let counts: Record<string, number>[] = []
  for (let nextMs = warmMs; ; ) {
    await stretch(nextMs)
    counts = await peace()
    await measure()
    const left = totalMs - (Date.now() - begun)
    if (left < 10_000) break
    nextMs = Math.min(stretchMs, left)
  }

  for (const [name, program] of Object.entries({ gateway, hag: hag() })) {
    if (!program.running) violations.push(`the ${name} has ended by itself:\n${program.output.slice(-2000)}`)
    const errors = program.output.match(/^.*"level":"error".*$/gm) ?? []
    for (const line of errors.slice(0, 5)) violations.push(`the ${name} says: ${line}`)
  }
  const exits = { gateway: await gateway.end(), hag: await hag().end() }
  for (const [name, { code, signal }] of Object.entries(exits)) {
    if (code !== 0) violations.push(`the ${name} ended with ${signal ?? code}`)
  }
  const rules = await world.execute('cpe')('sh', '-c', 'iptables-save 2>/dev/null; ip rule show')
  if (/BONDSOCKS|580\d/.test(rules)) violations.push(`the gateway left its rules:\n${rules}`)

  const served = await server.call('soakServed')
  for (const id of served.twice.slice(0, 10)) violations.push(`request ${id} was executed twice`)
  const judged = judge(outcomes, chaos.windows, begun, { gateway: [gateway], hag: hags })
  violations.push(...judged.violations, ...growth(calms))
  const summary = [
    ...judged.table,
    '',
    ...Object.entries({ ...chaos.counts, ...Object.assign({}, ...counts) }).map(
      ([what, count]) => `${what.padEnd(28)}${String(count).padStart(7)}`,
    ),
    `requests at the server      ${String(served.requests).padStart(7)}, executed twice: ${served.twice.length}`,
    '',
    ...calms.map(
      (calm) =>
        `after ${((calm.at - begun) / 1000).toFixed(1).padStart(6)} s: ${programs.map((name) => `${name} ${calm.memoryMb[name].toFixed(1)} MB, ${calm.descriptors[name]} descriptors, ${calm.lines[name]} lines`).join('; ')}`,
    ),
  ]
  return { summary, violations }
}

/** What grew too much from the first calm, after the warm-up, to the last one. */
function growth(calms: readonly Calm[]): string[] {
  const first = calms[0]
  const last = calms.at(-1)
  if (first === undefined || last === undefined) return []
  const found: string[] = []
  for (const name of programs) {
    // The memory of a HAG that was restarted is compared with its own first calm.
    const since = calms.find(({ pid }) => pid[name] === last.pid[name]) ?? last
    const more = last.memoryMb[name] - since.memoryMb[name]
    if (more > memoryMb) found.push(`the ${name}'s memory grew by ${more.toFixed(1)} MB`)
    const open = last.descriptors[name] - first.descriptors[name]
    if (open > descriptors) found.push(`the ${name} has ${open} more descriptors`)
    const perMinute = (last.lines[name] - first.lines[name]) / ((last.at - first.at) / 60_000)
    if (perMinute > linesPerMinute) found.push(`the ${name} logs ${perMinute.toFixed(0)} lines a minute`)
  }
  return found
}
