import { BondsocksError } from '../../base/errors.js'
import { type Download, mean } from '../download.js'
import type { Lab } from '../lab.js'
import type { Scenario, Stage } from '../scenario.js'
import { settledSeconds } from './bond.js'

/** When the WAN is cut, and when it is back, seconds of the download. */
const cutAt = 8
const backAt = 16
/** Enough for about 30 s: after the cut, TCP waits twice as long after each failed try of a path. */
const megabytes = 130

export const failover: Scenario = {
  summary: 'DSL turns into a black hole in the middle of a download, and comes back',
  topology: 'hybrid',
  async run(stage) {
    await stage.startServer()
    await stage.startHag()
    await stage.startGateway()
    const cut = await cutDownload(stage)
    stage.table([heading(stage), ...phases(stage, cut)])
    stage.say(`  ${verdict(stage, cut)}`)
    requireSurvival(stage, cut)
  },
}

/** Downloads; meanwhile the first WAN becomes a black hole, and comes back. */
export async function cutDownload(stage: Stage): Promise<Download> {
  const { lab } = stage
  const wan = firstOf(lab)
  const done = new AbortController()
  const act = async () => {
    await stage.sleep(cutAt)
    if (done.signal.aborted) return
    await lab.blackHole(wan, true)
    stage.say(`  --- ${wan} is cut: every packet is lost, the link stays up`)
    await stage.sleep(backAt - cutAt)
    if (done.signal.aborted) return
    await lab.blackHole(wan, false)
    stage.say(`  --- ${wan} is back`)
  }
  const acting = act()
  acting.catch(() => {})
  try {
    stage.say(`bondsocks: ${megabytes} MB`)
    const cut = await stage.download(megabytes)
    if (cut.seconds > backAt) return cut
    throw new BondsocksError('LAB_DOWNLOAD', `the download took only ${cut.seconds.toFixed(0)} s: too short to show anything`)
  } finally {
    done.abort()
  }
}

const firstOf = (lab: Lab) => lab.wans[0]?.name ?? ''

/** When the WAN that came back carried data again; undefined if it did not. */
function resumedAt({ lab }: Stage, { samples }: Download): number | undefined {
  const [first] = lab.wans
  return samples.find(({ at, wans }) => at > backAt && (wans[firstOf(lab)] ?? 0) > (first?.rateDown ?? 0) / 4)?.at
}

export function heading({ lab }: Stage): string[] {
  return ['Mbit/s', 'payload', ...lab.wans.map(({ name, rateDown }) => `${name} (of ${rateDown})`)]
}

/** A row for each phase. */
export function phases(stage: Stage, cut: Download): string[][] {
  const wan = firstOf(stage.lab)
  const resumed = resumedAt(stage, cut)
  return [
    rates(stage, 'bondsocks, both', cut, settledSeconds, cutAt),
    rates(stage, `bondsocks, ${wan} cut`, cut, cutAt + 1, backAt),
    // The first seconds also deliver bytes that had waited for missing ones.
    ...(resumed === undefined ? [] : [rates(stage, `bondsocks, ${wan} back`, cut, resumed + 2)]),
  ]
}

/** A row of the means between two seconds of a download. */
export function rates({ lab }: Stage, title: string, { samples }: Download, from: number, to?: number): string[] {
  const { payload, wans } = mean(samples, from, to)
  return [title, ...[payload, ...lab.wans.map(({ name }) => wans[name] ?? 0)].map((rate) => rate.toFixed(1))]
}

export function verdict(stage: Stage, cut: Download): string {
  const wan = firstOf(stage.lab)
  const resumed = resumedAt(stage, cut)
  const again = resumed === undefined ? 'was not used again' : `carried data again within ${Math.ceil(resumed - backAt)} s`
  const { seconds, until } = cut.longestGap
  const gap = `longest time without a byte: ${(seconds * 1000).toFixed(0)} ms, ${until.toFixed(0)} s after the start`
  return `checksum verified; ${gap}; once back, ${wan} ${again}`
}

/** Throws if the download was slow after the cut. */
export function requireSurvival({ lab }: Stage, { samples }: Download): void {
  const [first, second] = lab.wans
  const during = mean(samples, cutAt + 1, backAt).wans[second?.name ?? ''] ?? 0
  if (during >= (second?.rateDown ?? 0) / 2) return
  throw new BondsocksError('LAB_FAILOVER', `with ${first?.name} cut, ${second?.name} carried only ${during.toFixed(1)} Mbit/s`)
}
