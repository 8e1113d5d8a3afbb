import type { Scenario } from '../scenario.js'
import { compare } from './bond.js'

export const ethernet: Scenario = {
  summary: 'the same over two Ethernet WANs of 10 and 100 Mbit/s, to a HAG at 4.4.4.4',
  topology: 'ethernet',
  run: (stage) => compare(stage, { directMegabytes: 10, bondedMegabytes: 180 }),
}
