/** From a LAN client's connect call to the first byte of the answer, in round trips of the first WAN. */
import { setTimeout as sleep } from 'node:timers/promises'
import { median } from '../../src/lab/measure.js'
import type { Bed } from '../bed.js'
import type { Figure } from './figure.js'

/** Long enough that a connection is over, and another one is prepared again, before the next begins. */
const everyMs = 200

export async function firstByteMs(bed: Bed, times: number): Promise<number> {
  const all: number[] = []
  for (let index = 0; index < times; index++) {
    await sleep(everyMs)
    all.push((await bed.load('down', 1)).firstMs)
  }
  return median(all)
}

export const firstByte: Figure = {
  name: 'first-byte',
  lab: 'shaped',
  metrics: [{ id: 'first-byte', label: 'first byte, idle', unit: 'RTT', max: () => 1.1 }],
  async measure(bed) {
    const roundTripMs = 2 * (bed.world.lab.wans[0]?.delayMs ?? Number.NaN)
    return { 'first-byte': (await firstByteMs(bed, bed.quick ? 5 : 11)) / roundTripMs }
  },
}
