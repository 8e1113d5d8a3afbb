import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Reconciler } from '../../src/network/reconcile.js'
import type { Plan, WanAddresses } from '../../src/network/state.js'
import { watchKernel } from '../../src/network/watch.js'
import { memoryLog } from '../support/memory-log.js'

const dsl = { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' }
const lte = { name: 'lte', interface: 'lte', address4: '10.2.0.2' }
const step = { text: 'ip rule add', action: { argv: ['ip'] }, undo: [] }
const plan = (wans: WanAddresses[], notes: string[] = [], steps: Plan['steps'] = []): Plan => ({ wans, notes, steps })

function running(apply: () => Promise<Plan>) {
  const log = memoryLog()
  const stop = new AbortController()
  const seen: string[][] = []
  const onWans = (wans: readonly WanAddresses[]) => seen.push(wans.map(({ name }) => name))
  const reconciler = new Reconciler({ apply, onWans, log, initial: plan([dsl, lte]) })
  const ended = reconciler.run(stop.signal)
  const end = () => {
    stop.abort()
    return ended
  }
  return { log, seen, reconciler, end }
}

t.test('a burst of changes is one pass, and the WANs are told once they are others', async (t) => {
  let passes = 0
  const { log, seen, reconciler, end } = running(async () => {
    passes++
    return passes === 1 ? plan([lte], ['WAN dsl is down: no carrier'], [step]) : plan([lte], ['WAN dsl is down: no carrier'])
  })
  for (let i = 0; i < 50; i++) reconciler.poke()
  await sleep(100)
  t.equal(passes, 1)
  t.same(seen, [['lte']])
  reconciler.poke()
  await sleep(700)
  t.equal(passes, 2)
  t.same(seen, [['lte']], 'nothing new')
  await end()
  t.same(log.lines, ['info the network changed and was set up anew', 'warn WAN dsl is down: no carrier'])
})

t.test('a flapping link gets a pass at most every half second', async (t) => {
  let passes = 0
  const { reconciler, end } = running(async () => {
    passes++
    return plan([dsl, lte])
  })
  const poking = setInterval(() => reconciler.poke(), 5)
  await sleep(1300)
  clearInterval(poking)
  await end()
  t.ok(passes >= 2 && passes <= 3, `${passes} passes`)
})

t.test('a failed pass is said once and tried again', async (t) => {
  let passes = 0
  const { log, reconciler, end } = running(async () => {
    if (++passes <= 2) throw new Error('no such device')
    return plan([dsl, lte])
  })
  reconciler.poke()
  await sleep(1500)
  await end()
  t.equal(passes, 3)
  t.same(log.lines, [
    'warn the network could not be set up anew, another try follows: no such device',
    'info the network set-up works again',
  ])
})

t.test('it ends with no pass under way', async (t) => {
  let under = 0
  const { reconciler, end } = running(async () => {
    under++
    await sleep(200)
    under--
    return plan([dsl, lte])
  })
  reconciler.poke()
  await sleep(60)
  t.equal(under, 1)
  await end()
  t.equal(under, 0)
})

t.test('a monitor that dies is started again, and what went by unseen is looked for', async (t) => {
  const log = memoryLog()
  const stop = new AbortController()
  let changes = 0
  let starts = 0
  const watching = watchKernel(
    {
      log,
      onChange: () => changes++,
      stream: async (argv, onOutput, signal) => {
        t.same(argv, ['ip', '-o', 'monitor', 'link', 'address', 'route', 'rule'])
        if (++starts === 1) return 'exit code 2'
        onOutput()
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
        return 'ended'
      },
    },
    stop.signal,
  )
  await sleep(600)
  stop.abort()
  await watching
  t.equal(starts, 2)
  t.equal(changes, 2)
  t.same(log.lines, ['warn the watch on the network ended and is started again: exit code 2'])
})
