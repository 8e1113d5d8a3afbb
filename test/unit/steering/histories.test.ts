/** What the gateway does and says when WANs and HAGs fail in homes, one after the other, in virtual time. */
import t from 'tap'
import { histories, houses } from '../../support/steering-histories.js'
import { record } from '../../support/steering-record.js'
import type { Step } from '../../support/steering-world.js'

const [house] = Object.values(houses)
const settled: Step = { type: 'wait', ms: 4000 }

for (const [name, { steps, does, says }] of Object.entries(histories))
  t.test(name, async (t) => {
    if (house === undefined) throw new Error('no house')
    const before = await record({ ...house, steps: [settled] })
    const { deeds, lines } = await record({ ...house, steps: [settled, ...steps] })
    const seconds = (at: number) => ((at - before.endedAt + 100) / 1000).toFixed(1)
    const done = deeds.filter(({ deed }) => deed !== 'look-for-stranded').map(({ at, deed }) => `${seconds(at)} s: ${deed}`)
    t.same(done, does)
    t.same(lines.slice(before.lines.length), says)
  })
