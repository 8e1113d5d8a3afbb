/** When WANs are asked whether full-size packets pass, and what is reported. */
import t, { type Test } from 'tap'
import type { WanFact } from '../../src/gateway/facts.js'
import { FullSize, type FullSizeOptions, passesFullSize } from '../../src/gateway/wans/full-size.js'
import { virtualTime } from '../support/virtual-time.js'

const hag = { address: '192.0.2.1', port: 1080 }
const engine: FullSizeOptions['engine'] = {
  connect: async () => ({ ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }),
}

/** `says`: what each question in turn finds; the last one again and again. */
function start(
  t: Test,
  { metered = false, isDown = false, says }: { metered?: boolean; isDown?: boolean; says: (boolean | undefined)[] },
) {
  const time = virtualTime(t)
  const facts: WanFact[] = []
  const asked: number[] = []
  const health: { state: 'up' | 'down' } = { state: isDown ? 'down' : 'up' }
  const link = { family: 4 as const, metered, address: '10.1.0.2', health, isNarrow: false }
  const startedAt = time.now
  const fullSize = new FullSize({
    engine,
    links: () => [{ ...link }],
    hags: () => [hag],
    report(fact) {
      facts.push(fact)
      if (fact.type === 'full-size-seen') link.isNarrow = !fact.passes
    },
    async ask() {
      asked.push(time.now - startedAt)
      return says.length > 1 ? says.shift() : says[0]
    },
  })
  const end = new AbortController()
  const running = fullSize.run(end.signal)
  t.teardown(async () => {
    end.abort()
    await time.advance(1000)
    await running
  })
  return { time, facts, asked, link, fullSize }
}

const narrow = { type: 'full-size-seen', bind: '10.1.0.2', passes: false }
const wide = { ...narrow, passes: true }

t.test('a HAG that cannot be reached says nothing', async (t) => {
  t.equal(await passesFullSize(engine, { hag, bind: '192.0.2.2' }), undefined)
  const { time, facts, asked } = start(t, { says: [undefined] })
  await time.advance(60_500)
  t.same([facts, asked], [[], [500, 60_500]])
})

t.test('a path that passes them is asked once an hour, or six where that costs money, and is no news', async (t) => {
  for (const [metered, hours] of [
    [false, 1],
    [true, 6],
  ] as const)
    await t.test(`metered: ${metered}`, async (t) => {
      const { time, facts, asked } = start(t, { metered, says: [true] })
      await time.advance(hours * 3_600_000 + 499)
      t.equal(asked.length, 1)
      await time.advance(1)
      t.same([asked.length, facts], [2, []])
    })
})

t.test('what is lost twice is news; asked again after 30 s, and at once when routes are others', async (t) => {
  const { time, facts, asked, fullSize } = start(t, { says: [false, true, false] })
  await time.advance(500)
  t.same([facts, asked.length], [[], 2], 'one packet may have been lost')
  await time.advance(3_600_000)
  t.same(facts, [narrow])
  const before = asked.length
  await time.advance(29_000)
  t.equal(asked.length, before)
  await time.advance(1000)
  t.equal(asked.length, before + 1, 'once: it was found so')
  fullSize.checkNow()
  await time.advance(1)
  t.equal(asked.length, before + 2)
})

t.test('a path that passes them again; while no HAG answers over it it is not asked', async (t) => {
  const { time, facts, asked, link, fullSize } = start(t, { isDown: true, says: [false, false, true] })
  await time.advance(5000)
  t.same(asked, [])
  link.health.state = 'up'
  fullSize.look()
  await time.advance(1)
  t.same(facts, [narrow])
  await time.advance(30_000)
  t.same(facts, [narrow, wide])
})
