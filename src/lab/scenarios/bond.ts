import { BondsocksError } from '../../base/errors.js'
import { type Download, mean } from '../download.js'
import type { Scenario, Stage } from '../scenario.js'

/** By then slow start is over, and the second WAN has joined. */
export const settledSeconds = 3

export const bond: Scenario = {
  summary: 'a download over both WANs of the hybrid topology, beside DSL alone',
  topology: 'hybrid',
  run: (stage) => compare(stage, { directMegabytes: 20, bondedMegabytes: 90 }),
}

/** A download without the gateway, then one through it. Throws if bonding gains nothing. */
export async function compare(stage: Stage, sizes: { directMegabytes: number; bondedMegabytes: number }): Promise<void> {
  const first = stage.lab.wans[0]?.name ?? ''
  await stage.startServer()
  await stage.startHag()
  stage.say(`${first} alone, no proxy: ${sizes.directMegabytes} MB`)
  const direct = await stage.download(sizes.directMegabytes)
  await stage.startGateway()
  stage.say(`bondsocks: ${sizes.bondedMegabytes} MB`)
  const bonded = await stage.download(sizes.bondedMegabytes)
  stage.table([heading(stage), row(stage, `${first} alone`, direct), row(stage, 'bondsocks', bonded)])
  stage.say('  checksums verified; steady: payload after the first 3 s; WANs: bytes on the line')
  const capacity = stage.lab.wans.map(({ rateDown }) => rateDown)
  const reached = mean(bonded.samples, settledSeconds).payload
  if (reached > Math.max(...capacity) * payloadShare) return
  throw new BondsocksError('LAB_NOT_BONDED', `${reached.toFixed(1)} Mbit/s is no more than one WAN carries: bonding failed`)
}

/** 1428 of 1514 bytes: see LinkDirection. */
const payloadShare = 0.943

export function heading({ lab }: Stage): string[] {
  return ['Mbit/s', 'whole', 'steady', ...lab.wans.map(({ name, rateDown }) => `${name} (of ${rateDown})`)]
}

export function row({ lab }: Stage, title: string, { average, samples }: Download): string[] {
  const steady = mean(samples, settledSeconds)
  return [
    title,
    ...[average, steady.payload, ...lab.wans.map(({ name }) => steady.wans[name] ?? 0)].map((rate) => rate.toFixed(1)),
  ]
}
