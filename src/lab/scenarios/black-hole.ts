import { median, startDialling } from '../measure.js'
import type { LabProgram } from '../program.js'
import type { Scenario, Stage } from '../scenario.js'
import { type Dialled, now } from '../traffic.js'
import { awaitUp, besideUsual, cutStream, hows, usualWithout } from './cut.js'

const bytes = 10_000
const everyMs = 100

export const blackHole: Scenario = {
  summary: 'a WAN dies silently: under a stream, under new connections, and on an idle gateway',
  topology: 'hybrid',
  async run(stage) {
    const { gateway } = await stage.startAll()
    const idle = await idleDetection(stage, gateway)
    const fresh = await newConnections(stage, gateway)
    const stream = await cutStream(stage, gateway, 'black-hole', 2)
    const bulk = await cutStream(stage, gateway, 'black-hole', 0)
    stage.figures([
      { what: 'stream: longest gap', measured: stream.gap, unit: 'ms', asked: 500, redsocks: '629' },
      { what: 'stream: detected', measured: stream.detected, unit: 'ms', asked: 500 },
      { what: 'download: longest gap', measured: bulk.gap, unit: 'ms', asked: 500 },
      { what: 'download: detected', measured: bulk.detected, unit: 'ms', asked: 500 },
      { what: 'back: data of the running download after the first good probe', measured: bulk.resumed, unit: 'ms', asked: 1000 },
      { what: 'idle: detected', measured: idle, unit: 'ms', asked: 2000 },
      { what: 'new connections: detected', measured: fresh.detected, unit: 'ms', asked: 500 },
      { what: 'new connections: failed', measured: fresh.failed, unit: '', asked: 0 },
      {
        what: 'new connections: slowest before detection',
        measured: fresh.slowest,
        unit: 'ms',
        asked: 1500,
        redsocks: 'none succeeds',
      },
      ...besideUsual('new connections after it', fresh.after, fresh.usual),
    ])
  },
}

const [wan, other] = ['dsl', 'lte']

async function idleDetection(stage: Stage, gateway: LabProgram): Promise<number> {
  const cutAt = now()
  await hows['black-hole'](stage, wan, true)
  const { at } = await stage.requireLog(gateway, new RegExp(`WAN ${wan} is down`), cutAt)
  await comesBack(stage, gateway)
  return at - cutAt
}

/**
 * Returns how long new connections take, ms. `usual`: over the other WAN while the first is unplugged; `after`: begun after the detection.
 */
async function newConnections(stage: Stage, gateway: LabProgram) {
  const usual = await usualWithout(stage, gateway, wan, bytes, everyMs)
  const dialling = await startDialling(stage, bytes, everyMs)
  await stage.sleep(1)
  const cutAt = now()
  await hows['black-hole'](stage, wan, true)
  await stage.sleep(4)
  const all = await dialling.stop()
  const detectedAt = (await gateway.awaitLog(new RegExp(`WAN ${wan} is down`), cutAt))?.at
  await comesBack(stage, gateway)
  for (const { at, error } of all) {
    if (error !== undefined) stage.say(`  a new connection failed (${error}), begun ${(at - cutAt).toFixed(0)} ms after the cut`)
  }
  // If a connection was just being opened, its client's words may have reached the server, so they are not sent again: the client gets a RST.
  const failed = all.filter(({ at, error }) => error !== undefined && at >= cutAt).length
  stage.say(`  new connections: over ${other} alone usually ${median(usual).toFixed(0)} ms; ${all.length} made, ${failed} failed`)
  const times = (some: Dialled[]) => some.map(({ ms }) => ms)
  return {
    failed,
    usual,
    slowest: Math.max(...times(all.filter(({ at }) => detectedAt === undefined || at < detectedAt))),
    after: times(all.filter(({ at }) => detectedAt === undefined || at > detectedAt)),
    detected: detectedAt && detectedAt - cutAt,
  }
}

async function comesBack(stage: Stage, gateway: LabProgram): Promise<void> {
  const backAt = now()
  await hows['black-hole'](stage, wan, false)
  await awaitUp(stage, gateway, wan, backAt)
}
