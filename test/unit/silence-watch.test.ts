import t, { type Test } from 'tap'
import type { Probe, ProbeResult } from '../../src/engine/contract.js'
import type { WanState } from '../../src/gateway/model.js'
import { SilenceWatch } from '../../src/gateway/wans/silence-watch.js'
import { hag } from '../support/link-prober.js'
import { memoryLog } from '../support/memory-log.js'
import { answer, failed } from '../support/probing-engine.js'
import { virtualTime } from '../support/virtual-time.js'

function start(t: Test) {
  const time = virtualTime(t)
  const links = ['10.1.0.2', '10.2.0.2', undefined].map((address, index) => ({
    family: 4 as const,
    metered: index === 1,
    address,
    health: { state: 'probing' as WanState },
  }))
  const watched: { probe: Probe; end(result: ProbeResult): void }[] = []
  const told: string[] = []
  const stop = new AbortController()
  const watch = new SilenceWatch({
    engine: { probe: (probe) => new Promise((end) => watched.push({ probe, end })) },
    links: () => links,
    hags: () => [hag],
    timeoutMs: () => 300,
    onSilent: (index) => told.push(`${index} is silent`),
    onEnded: (index) => told.push(`${index} has ended`),
    log: memoryLog(),
  })
  const running = watch.run(stop.signal)
  const setAll = (state: WanState) => {
    for (const link of links) link.health.state = state
    watch.look()
    return time.settle()
  }
  return { time, watch, watched, told, stop, running, setAll }
}

t.test('a WAN that is up and not metered is watched, and again when the time is over', async (t) => {
  const { time, watched, told, setAll, stop, running } = start(t)
  await time.advance(5000)
  t.equal(watched.length, 0, 'not before it is up')
  await setAll('up')
  const binds = () => watched.map(({ probe }) => probe.bind)
  t.same(binds(), ['10.1.0.2'])
  t.match(watched[0]?.probe, { protocol: 'tcp', remote: { address: hag.address }, watchMs: 60_000 })
  watched[0]?.end(answer())
  await time.settle()
  t.same(binds(), ['10.1.0.2', '10.1.0.2'])
  t.same(told, [])
  stop.abort()
  await running
})

t.test('what ends it is told, and it is watched again a second later if it is up', async (t) => {
  const { time, watched, told, setAll, stop, running } = start(t)
  await setAll('up')
  const endings = [
    [failed('watch', 'ETIMEDOUT'), '0 is silent'],
    [failed('watch', 'ECONNRESET'), '0 has ended'],
    [failed('connect', 'ETIMEDOUT'), '0 has ended'],
  ] as const
  for (const [index, [result, expected]] of endings.entries()) {
    watched[index]?.end(result)
    await time.advance(900)
    t.equal(watched.length, index + 1)
    t.same(told.slice(index), [expected])
    await time.advance(100)
    t.equal(watched.length, index + 2)
  }
  await setAll('down')
  watched.at(-1)?.end(failed('watch', 'ETIMEDOUT'))
  await time.advance(5000)
  t.equal(watched.length, endings.length + 1)
  stop.abort()
  await running
})
