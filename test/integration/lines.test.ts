/** The lab's lines are the same by netem and by our emulator: what they delay, how fast they are, how much waits for them. */
import t from 'tap'
import { filePort } from '../../src/lab/download.js'
import { labUp } from '../../src/lab/lab.js'
import { nodeArgv } from '../../src/lab/node.js'
import { LabProgram } from '../../src/lab/program.js'
import { hasNetem } from '../../src/lab/shaper.js'
import { type Line, measureLine } from '../support/line.js'
import { createNamespace, needsRoot, needsTun, randomName } from '../support/namespaces.js'
import { remeasure } from '../support/wait.js'

const hasIt = !needsRoot && (await hasNetem((await createNamespace(t)).name))
const kinds = [
  ['netem', needsRoot || (hasIt ? false : 'this kernel has no netem')],
  ['emulator', needsRoot || needsTun],
] as const

for (const [links, skip] of kinds) {
  t.test(links, { skip }, async (t) => {
    // A tenth of the rate, so that a busy or slow machine fills it all the same.
    const lab = await labUp({ topology: 'hybrid', name: randomName(), links, slow: 10 })
    t.teardown(() => lab.down())
    const server = new LabProgram('the file server', lab.argv('server', [...nodeArgv('lab/programs/files'), String(filePort)]))
    await server.waitFor('serving')
    // A queue counts bytes: as many milliseconds of small packets fit as of large ones.
    for (const [index, segmentBytes] of [1448, 400].entries()) {
      const wan = lab.wans[index]
      if (wan === undefined) throw new Error('a WAN is missing')
      const roundTrip = 2 * wan.delayMs
      const isAsPlanned = ({ minMs, maxMs, rate }: Line) =>
        minMs >= roundTrip &&
        minMs < roundTrip + 40 &&
        maxMs > roundTrip + 70 &&
        maxMs < roundTrip + 130 &&
        Math.abs(rate / wan.rateDown - 1) < 0.07
      const line = await remeasure(() => measureLine(lab, wan, 4, segmentBytes), isAsPlanned)
      const title = `${wan.name}, ${wan.rateDown} Mbit/s, ${roundTrip} ms and a queue of 100, in segments of ${segmentBytes} bytes`
      t.ok(isAsPlanned(line), `${title}: ${JSON.stringify(line)}`)
      t.ok(line.lost > 0, 'what does not fit is lost')
    }
  })
}
