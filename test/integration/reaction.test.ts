/** How soon the network set-up follows the kernel, on a running gateway with its real `ip monitor`. */
import t from 'tap'
import { median } from '../../src/lab/measure.js'
import { remeasure, sleep, World } from '../support/hybrid.js'
import { needsRoot, needsSpeed } from '../support/namespaces.js'

const skip = needsRoot || needsSpeed

const times = 3
/** Longer than the pause after a pass, and the one after the pass that our own changes lead to. */
const quietMs = 1400

/** For what takes one pass, and for what takes several. On a busy machine each pass takes longer, so the second limit follows the first figure. */
const maxMs = 500
const maxMsOfSeveral = 1000

/** What another program does to us, and what is to be true again afterwards. */
const changes: Record<string, { act: (turn: number) => string; isRight: (turn: number) => string; passes?: number }> = {
  'a rule of ours is deleted': {
    act: () => 'ip rule delete priority 701',
    isRight: () => "ip rule show | grep -q '^701:.*from 10.2.0.2 lookup 5801'",
  },
  'the table of a WAN is flushed': {
    act: () => 'ip route flush table 5801',
    isRight: () => "ip route show table 5801 | grep -q '^default .*src 10.2.0.2'",
  },
  // Two passes, spaced by eight times what one takes: the endpoint comes when a HAG has answered from there.
  'an address is exchanged': {
    passes: 10,
    act: (turn) => `ip address delete 10.1.0.${turn + 2}/24 dev dsl; ip address add 10.1.0.${turn + 3}/24 dev dsl`,
    isRight: (turn) =>
      `ip rule show | grep -q '^700:.*from 10.1.0.${turn + 3} ' && ip mptcp endpoint show | grep -q '^10.1.0.${turn + 3} '`,
  },
}

t.test('the first change after a quiet time is followed within a moment', { skip, timeout: 120_000 }, async (t) => {
  const world = await World.run(t, { shaped: false })
  const cpe = world.execute('cpe')
  /** In the namespace, so that no start of a process is measured but those of the looks. */
  const measure = async (act: string, isRight: string, maxSeconds: number) => {
    const now = 'date +%s%N'
    const script = `${act}; start=$(${now}); until ${isRight}; do sleep 0.005; done; echo $((($(${now}) - start) / 100000))`
    return Number(await cpe('timeout', String(maxSeconds), 'sh', '-c', script)) / 10
  }
  let onePassMs = 0
  for (const [what, { act, isRight, passes }] of Object.entries(changes)) {
    let turn = 0
    const round = async () => {
      const figures = []
      for (const end = turn + times; turn < end; turn++) {
        await sleep(quietMs)
        figures.push(await measure(act(turn), isRight(turn), 10))
      }
      t.comment(`${what}: set right after ${median(figures)} ms (${figures.join(', ')})`)
      return median(figures)
    }
    const limitMs = passes === undefined ? maxMs : Math.max(maxMsOfSeveral, passes * onePassMs)
    const ms = await remeasure(round, (one) => one < limitMs)
    t.ok(ms < limitMs, `${what}: ${ms} of ${limitMs} ms`)
    onePassMs ||= ms
  }
})
