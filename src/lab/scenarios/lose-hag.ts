/** Shared by the scenarios that lose the HAG of all connections. */
import { hagSubflows, type Running, startDialling, startStream } from '../measure.js'
import type { Figure, Stage } from '../scenario.js'
import { now, type StreamReport } from '../traffic.js'

const streams = 3
const bytes = 10_000
const everyMs = 100
/** The kernel's default net.mptcp.close_timeout, after which clients of redsocks get a RST. */
const before = '60 s'

/** Runs streams and new connections while `lose` takes the HAG away, and prints what each saw. Throws only if nothing can be measured. */
export async function loseHag(stage: Stage, lose: () => Promise<void>): Promise<Figure[]> {
  const old: Running<StreamReport>[] = []
  for (let index = 0; index < streams; index++) old.push(await startStream(stage, 0.5))
  const dialling = await startDialling(stage, bytes, everyMs)
  await stage.sleep(1.5)
  const lostAt = now()
  await lose()
  await stage.sleep(5)
  const reports = await Promise.all(old.map((one) => one.stop()))
  const all = (await dialling.stop()).filter(({ at }) => at > lostAt)
  stage.say(
    `  old connections: ${reports.map(({ ending, endedAt }) => `${ending} after ${(endedAt - lostAt).toFixed(0)} ms`).join(', ')}`,
  )
  const failed = all.filter(({ error }) => error !== undefined)
  for (const { at, ms, error } of failed) {
    stage.say(
      `  a new connection failed (${error}), begun ${(at - lostAt).toFixed(0)} ms after the loss, after ${ms.toFixed(0)} ms`,
    )
  }
  // Over a prepared connection a client's words leave at once. If the HAG falls silent then, they may have reached the server, so they are not
  // sent again: the client gets a RST, and knows whether it may repeat them.
  const reset = failed.filter(({ error }) => error === 'ECONNRESET')
  const worked = all.filter(({ error }) => error === undefined)
  const firstAt = Math.min(...worked.map(({ at, ms }) => at + ms))
  const isReset = reports.every(({ ending }) => ending !== 'stopped' && ending !== 'ETIMEDOUT')
  return [
    {
      what: 'new connections: the first one that works',
      measured: worked.length > 0 ? firstAt - lostAt : undefined,
      unit: 'ms',
      asked: 1000,
    },
    { what: 'new connections: failed without a RST', measured: failed.length - reset.length, unit: '', asked: 0 },
    {
      what: 'new connections: the last one that a RST told to begin anew',
      measured: Math.max(0, ...reset.map(({ at, ms }) => at + ms - lostAt)),
      unit: 'ms',
      asked: 1000,
    },
    { what: 'new connections: slowest', measured: Math.max(...worked.map(({ ms }) => ms)), unit: 'ms', asked: 1000 },
    {
      what: 'old connections: reset or ended',
      measured: isReset ? Math.max(...reports.map(({ endedAt }) => endedAt)) - lostAt : undefined,
      unit: 'ms',
      asked: 1000,
      redsocks: before,
    },
  ]
}

/** Which HAG a new connection goes through; undefined: neither. */
async function hagOfNew(stage: Stage): Promise<'hag' | 'hag2' | undefined> {
  const sockets = async () => (await hagSubflows(stage)).map(({ socket }) => socket)
  const old = await sockets()
  const stream = await startStream(stage, 2)
  try {
    // Its bytes show after a few round trips, on a busy machine later.
    for (let looks = 0; looks < 15; looks++) {
      await stage.sleep(0.2)
      const fresh = (await sockets()).filter((socket) => !old.includes(socket))
      const { hag, hag2 } = stage.lab.addresses
      if (fresh.some((socket) => socket.includes(` ${hag}:`))) return 'hag'
      if (fresh.some((socket) => socket.includes(` ${hag2}:`))) return 'hag2'
    }
    return undefined
  } finally {
    await stream.stop()
  }
}

/** It is a miss if a new connection goes another way. */
export async function requireHag(stage: Stage, wanted: 'hag' | 'hag2' | undefined): Promise<void> {
  const found = await hagOfNew(stage)
  const name = (host: typeof wanted) => (host === undefined ? 'no HAG' : host === 'hag' ? 'the first HAG' : 'the second HAG')
  if (found !== wanted) stage.miss(`a new connection went by ${name(found)}, not by ${name(wanted)}`)
}

/** Milliseconds until a new connection uses the first HAG again; undefined if none does within `patienceMs`. */
export async function returnsToFirst(stage: Stage, patienceMs: number): Promise<number | undefined> {
  const startedAt = now()
  while (now() - startedAt < patienceMs) {
    const begunAt = now()
    if ((await hagOfNew(stage)) === 'hag') return begunAt - startedAt
  }
  return undefined
}
