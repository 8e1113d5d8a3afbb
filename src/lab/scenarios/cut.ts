/** What the scenarios share that lose a WAN under a running connection and get it back. */
import { longestPause, requireIntact, startStream, WanRecorder } from '../measure.js'
import type { Program } from '../program.js'
import type { Stage } from '../scenario.js'
import { now } from '../traffic.js'

/** Ways to lose a WAN. */
export const hows = {
  'link-down': (stage: Stage, wan: string, lost: boolean) => stage.lab.carrier(wan, !lost),
  'black-hole': (stage: Stage, wan: string, lost: boolean) => stage.lab.blackHole(wan, lost),
} as const

export type How = keyof typeof hows

export interface Cut {
  wan: string
  /** Longest pauses: before the cut, from the cut on, and once the WAN is back; ms. */
  before: number
  gap: number
  gapBack: number
  /** From the cut until the gateway said that the WAN is down; ms. */
  detected: number | undefined
  /** From the first answer that came over the WAN again until the running connection's data did; ms. */
  resumed: number | undefined
}

/** More than the FIN that a HAG repeats on a lost subflow; less than the answers to one probe. */
const answerBytes = 150
/** More than probes and handshakes bring. */
const dataBytes = 20_000

/** A running connection of so many Mbit/s (0: unlimited) loses the WAN that carries most of it. Throws where a byte is wrong. */
export async function cutStream(stage: Stage, gateway: Program, how: How, mbit: number): Promise<Cut> {
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
    await stage.sleep(3)
    const backAt = now()
    await hows[how](stage, wan, false)
    await stage.sleep(3)
    const stoppedAt = now()
    const report = await stream.stop()
    requireIntact(stage, what, report)
    const answeredAt = recorder.reached(wan, backAt, answerBytes)
    const resumedAt = recorder.reached(wan, backAt, dataBytes)
    const down = gateway.logged(new RegExp(`WAN ${wan} is down`), cutAt)[0]?.at
    return {
      wan,
      before: longestPause(report, startedAt, cutAt),
      gap: longestPause(report, cutAt, backAt),
      gapBack: longestPause(report, backAt, stoppedAt),
      detected: down === undefined || down > backAt ? undefined : down - cutAt,
      resumed: resumedAt === undefined || answeredAt === undefined ? undefined : resumedAt - answeredAt,
    }
  } finally {
    recorder.stop()
  }
}

/** Throws where the gateway does not find a WAN well again. */
export async function awaitUp(stage: Stage, gateway: Program, wan: string, since: number): Promise<void> {
  await stage.requireLog(gateway, new RegExp(`WAN ${wan} is up`), since)
}
