/** Shared by the scenarios in which a running connection loses a WAN and gets it back. */
import { longestPause, mean, median, requireIntact, startDialling, startStream, WanRecorder } from '../measure.js'
import type { LabProgram } from '../program.js'
import type { Figure, Stage } from '../scenario.js'
import { now } from '../traffic.js'

/** Ways to lose a WAN. */
export const hows = {
  'link-down': (stage: Stage, wan: string, lost: boolean) => stage.lab.carrier(wan, !lost),
  'black-hole': (stage: Stage, wan: string, lost: boolean) => stage.lab.blackHole(wan, lost),
} as const

export type How = keyof typeof hows

export interface Cut {
  wan: string
  /** Longest pauses before the cut, after the cut, and after the WAN is back; ms. */
  before: number
  gap: number
  gapBack: number
  /** From the cut until the gateway said that the WAN is down; ms. */
  detected: number | undefined
  /** From the gateway's first good probe over the WAN until it brought the running connection's data again; ms. */
  resumed: number | undefined
}

/** More than probes and handshakes bring. */
const dataBytes = 20_000
/** How long to wait for what should happen within a second, on machines that do other things too. */
const patienceMs = 10_000

/** A running connection of so many Mbit/s (0: unlimited) loses the WAN that carries most of it. Throws if a byte is wrong. */
export async function cutStream(stage: Stage, gateway: LabProgram, how: How, mbit: number): Promise<Cut> {
  const what = mbit === 0 ? 'the bulk download' : `the stream of ${mbit} Mbit/s`
  const recorder = new WanRecorder(stage.lab, gateway.pid)
  try {
    const startedAt = now()
    const stream = await startStream(stage, mbit)
    await stage.sleep(2)
    const brought = (wan: string) => recorder.between(wan, startedAt, now())
    const [wan = ''] = stage.lab.wans.map(({ name }) => name).sort((one, other) => brought(other) - brought(one))
    const shares = stage.lab.wans.map(({ name }) => `${name} ${(brought(name) / 1000).toFixed(0)} kB`)
    stage.say(`  ${what}: ${shares.join(', ')}; now ${wan} is lost (${how})`)
    const cutAt = now()
    await hows[how](stage, wan, true)
    const [down] = await Promise.all([gateway.awaitLog(new RegExp(`WAN ${wan} is down`), cutAt, patienceMs), stage.sleep(3)])
    const backAt = now()
    await hows[how](stage, wan, false)
    const [resumedAt] = await Promise.all([recorder.awaitBytes(wan, backAt, dataBytes, patienceMs), stage.sleep(3)])
    // If the WAN did not fail often, it is up with its first answer.
    const answer = await gateway.awaitLog(new RegExp(`WAN ${wan} (answers again|is up)`), backAt, patienceMs)
    const stoppedAt = now()
    const report = await stream.stop()
    requireIntact(stage, what, report)
    return {
      wan,
      before: longestPause(report, startedAt, cutAt),
      gap: longestPause(report, cutAt, backAt),
      gapBack: longestPause(report, backAt, stoppedAt),
      detected: down && down.at - cutAt,
      // After a plug was pulled, its data may come before the gateway's answer.
      resumed: resumedAt === undefined || answer === undefined ? undefined : Math.max(resumedAt - answer.at, 0),
    }
  } finally {
    recorder.stop()
  }
}

/** Throws if the gateway does not find that the WAN is up again. */
export async function awaitUp(stage: Stage, gateway: LabProgram, wan: string, since: number): Promise<void> {
  await stage.requireLog(gateway, new RegExp(`WAN ${wan} is up`), since)
}

/** How long new connections take, in ms, while this WAN is unplugged and connections over the others are prepared. */
export async function usualWithout(
  stage: Stage,
  gateway: LabProgram,
  wan: string,
  bytes: number,
  everyMs: number,
): Promise<number[]> {
  const unpluggedAt = now()
  await hows['link-down'](stage, wan, true)
  await stage.requireLog(gateway, new RegExp(`WAN ${wan} is down`), unpluggedAt)
  const dialling = await startDialling(stage, bytes, everyMs)
  await stage.sleep(1)
  const readyAt = now()
  await stage.sleep(4)
  const all = await dialling.stop()
  const pluggedAt = now()
  await hows['link-down'](stage, wan, false)
  await awaitUp(stage, gateway, wan, pluggedAt)
  return all.filter(({ at }) => at >= readyAt).map(({ ms }) => ms)
}

/**
 * Compares how long new connections take with usual ones, ms. What is asked concerns the mean: on a shared machine, 6 to 7 of 100 usual
 * connections took more than 1.1 times their median although nothing was lost (800 measured; the host had stopped the machine for 10 to 20
 * ms), so the slowest of 40 only tells about the machine.
 */
export function besideUsual(what: string, some: readonly number[], usual: readonly number[]): Figure[] {
  const slowest = (values: readonly number[]) => Math.max(...values) / median(usual)
  return [
    { what: `${what}, beside the usual`, measured: mean(some) / mean(usual), unit: 'x', asked: 1.1 },
    { what: '  the slowest of them', measured: slowest(some), unit: 'x' },
    { what: '  the slowest of the usual', measured: slowest(usual), unit: 'x' },
  ]
}
