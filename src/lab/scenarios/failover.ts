import { BondsocksError } from '../../shared/errors.js'
import { type Download, mean } from '../download.js'
import type { Scenario, Stage } from '../scenario.js'
import { settledSeconds } from './bond.js'

/** Seconds of the download: cut, and back. */
const cutAt = 8
const backAt = 16
const megabytes = 110

export const failover: Scenario = {
  summary: 'DSL turns into a black hole in the middle of a download, and comes back',
  topology: 'hybrid',
  async run(stage) {
    await stage.startServer()
    await stage.startHag()
    await stage.startGateway()
    stage.say(`bondsocks: ${megabytes} MB`)
    const cut = await cutDownload(stage)
    stage.table(phases(stage, cut))
    stage.say(`  checksum verified; longest gap without a byte: ${(cut.longestGap.seconds * 1000).toFixed(0)} ms`)
    requireAll(stage, cut)
  },
}

/** Downloads, loses the first WAN silently on the way, and gets it back. */
export async function cutDownload(stage: Stage): Promise<Download> {
  const { lab } = stage
  const wan = lab.wans[0]?.name ?? ''
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
    const cut = await stage.download(megabytes)
    if (cut.seconds > backAt) return cut
    throw new BondsocksError('LAB_DOWNLOAD', `the download took only ${cut.seconds.toFixed(0)} s: too short to show anything`)
  } finally {
    done.abort()
  }
}

/** A row for each phase, heading first. */
export function phases({ lab }: Stage, { samples }: Download): string[][] {
  const wan = lab.wans[0]?.name
  const row = (title: string, from: number, to?: number) => {
    const { payload, wans } = mean(samples, from, to)
    return [title, ...[payload, ...lab.wans.map(({ name }) => wans[name] ?? 0)].map((rate) => rate.toFixed(1))]
  }
  return [
    ['Mbit/s', 'payload', ...lab.wans.map(({ name, rateDown }) => `${name} (of ${rateDown})`)],
    row('both', settledSeconds, cutAt),
    row(`${wan} cut`, cutAt + 1, backAt),
    row(`${wan} back`, backAt + 1),
  ]
}

/** Throws where a download that survived the cut did not use what there was. */
export function requireAll({ lab }: Stage, { samples }: Download): void {
  const [first, second] = lab.wans
  const during = mean(samples, cutAt + 1, backAt).wans[second?.name ?? ''] ?? 0
  if (during < (second?.rateDown ?? 0) / 2) {
    throw new BondsocksError('LAB_FAILOVER', `with ${first?.name} cut, ${second?.name} carried only ${during.toFixed(1)} Mbit/s`)
  }
}
