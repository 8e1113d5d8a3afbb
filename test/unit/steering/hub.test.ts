/** What is looked into at once because of what connections met, in virtual time. */
import t from 'tap'
import { houses } from '../../support/steering-histories.js'
import { record } from '../../support/steering-record.js'
import type { Scenario, Step } from '../../support/steering-world.js'

const house = { ...houses['one HAG'] } as Scenario
const settled: Step = { type: 'wait', ms: 4000 }
const moment: Step = { type: 'wait', ms: 5 }

/** What was asked within a moment after these steps. */
async function askedAfter(scenario: Scenario, steps: readonly Step[]): Promise<string[]> {
  const { probes, endedAt } = await record({ ...scenario, steps: [settled, ...steps, moment] })
  // After the last step a tenth of a second goes by.
  const since = endedAt - 105.1
  return probes.flatMap((line) => {
    const [at = '', ...what] = line.split(' ')
    return Number(at) >= since && Number(at) < since + 5 ? [what.join(' ')] : []
  })
}

t.test('a connection that did not become MPTCP: the path is asked', async (t) => {
  const asked = 'mptcp 203.0.113.3 from 10.1.0.2 within 300'
  t.notOk((await askedAfter(house, [])).includes(asked))
  t.ok((await askedAfter(house, [{ type: 'fell-back', wan: 'dsl' }])).includes(asked))
})

t.test('a HAG finds no way to IPv6 destinations of users: it is asked for one itself', async (t) => {
  const unreachable: Step = { type: 'ipv6-unreachable', hag: 0 }
  const asked = 'connection to 203.0.113.3 from 10.1.0.2'
  t.notOk((await askedAfter(house, [unreachable])).includes(asked))
  t.ok((await askedAfter(house, [unreachable, unreachable])).includes(asked))
})

t.test('users whose requests are refused, and nobody else is served: we are meant', async (t) => {
  const refused: Step = { type: 'request-refused', hag: 0, wan: 'lte' }
  const steps: Step[] = [{ type: 'hag', hag: 0, change: { request: 'refused' } }, settled, refused, refused, refused, moment]
  const { lines } = await record({ ...house, wans: ['lte'], steps })
  t.match(lines.at(-1), /^warn HAG 203.0.113.3:1080 refuses us over WAN lte, from 10.2.0.2: it refuses every request/)
})
