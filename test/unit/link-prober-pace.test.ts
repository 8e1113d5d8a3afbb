/** When the prober asks over a WAN, and how often, on a clock that the test moves. */
import t, { type Test } from 'tap'
import { dsl, lte, start, type World } from '../support/link-prober.js'
import { answer, failed, silence } from '../support/probing-engine.js'

t.test('a steady stream that stops', async (t) => {
  const flowing = async (t: Test, probe: World['probe'], relaying = 1) => {
    const stream = { isOver: false, received: 0 }
    const home = await start(t, {
      relaying,
      received() {
        if (!stream.isOver) stream.received += 5000
        return { dsl: stream.received, lte: 0 }
      },
      probe: (one) => (stream.isOver && probe?.(one)) || answer(),
    })
    t.ok(await home.until(home.bothUp))
    await home.time.advance(1000)
    stream.isOver = true
    return { ...home, before: home.asked.length, stoppedAt: home.time.now }
  }
  await t.test('is asked about at once, and the WAN is down within half a second', async (t) => {
    const { time, isUp, log, until, stoppedAt } = await flowing(t, ({ bind }) => (bind === '10.1.0.2' ? silence : answer()))
    t.ok(await until(() => !isUp('dsl')))
    t.ok(time.now - stoppedAt < 500, `${time.now - stoppedAt} ms`)
    t.ok(log.lines.includes('warn WAN dsl is down: what it carried has stopped, and no HAG answers over it'))
    t.ok(isUp('lte'))
  })
  await t.test("is nobody's where none is connected: the next probe is soon enough", async (t) => {
    const { time, asked, isUp, until, before, stoppedAt } = await flowing(
      t,
      ({ bind }) => (bind === '10.1.0.2' ? silence : answer()),
      0,
    )
    t.ok(await until(() => asked.length > before))
    t.ok(await until(() => !isUp('dsl')))
    const ms = time.now - stoppedAt
    t.ok(ms > 500 && ms < 2000, `${ms} ms`)
  })
  await t.test('has just ended where a HAG answers', async (t) => {
    const { time, asked, log, before } = await flowing(t, () => answer())
    await time.advance(400)
    t.ok(asked.slice(before).filter((one) => one.endsWith('10.1.0.2')).length >= 2, 'it was asked')
    t.notMatch(log.lines.join(), /down/)
  })
})

t.test('an idle metered WAN is asked once', async (t) => {
  const { time, asked } = await start(t, { metered: ['lte'] })
  await time.advance(10 * 60_000)
  t.equal(asked.filter((one) => one.endsWith('10.2.0.2')).length, 1)
  t.ok(asked.filter((one) => one.endsWith('10.1.0.2')).length >= 590)
  await time.advance(6 * 60_000)
  t.equal(asked.filter((one) => one.endsWith('10.2.0.2')).length, 2, 'in a quarter of an hour')
})

t.test('while no HAG greets, a metered WAN is asked once a minute, and no more once one has', async (t) => {
  const kinds = [failed('connect', 'ECONNREFUSED'), failed('greeting', 'ECONNRESET'), failed('greeting', 'EPROTO')]
  for (const says of kinds)
    await t.test(says.ok ? '' : says.failure.code, async (t) => {
      let isBack = false
      const { time, asked, isUp, until } = await start(t, {
        wans: [lte],
        metered: ['lte'],
        probe: ({ protocol }) => (isBack ? answer(30, protocol) : says),
      })
      t.ok(await until(() => isUp('lte')))
      await time.advance(10_000)
      const before = asked.length
      await time.advance(10 * 60_000)
      t.ok(asked.length - before <= 20, `${asked.length - before} times in ten minutes`)
      isBack = true
      await time.advance(60_000)
      const answered = asked.length
      await time.advance(5 * 60_000)
      t.equal(asked.length, answered, 'it was found')
    })
})

t.test(
  'a WAN of which nothing is known, and that carries other traffic, is not asked at the pace of what refuses at once',
  async (t) => {
    let received = 0
    const { time, asked } = await start(t, {
      wans: [dsl],
      probe: () => failed('connect', 'EHOSTUNREACH'),
      received: () => {
        received += 5000
        return { dsl: received }
      },
    })
    await time.advance(10_000)
    const before = asked.length
    await time.advance(10_000)
    t.ok(asked.length - before <= 150, `${asked.length - before} times in ten seconds`)
  },
)

t.test('an idle metered WAN over which something is sent and nothing comes back', async (t) => {
  await t.test('is asked', async (t) => {
    let sent = 0
    let isDead = false
    const { time, isUp, asked, until } = await start(t, {
      wans: [lte],
      metered: ['lte'],
      received: () => ({ lte: 100 }),
      sent: () => sent,
      probe: () => (isDead ? silence : answer()),
    })
    t.ok(await until(() => isUp('lte')))
    await time.advance(1500)
    t.equal(asked.length, 1)
    isDead = true
    sent += 60
    t.ok(await until(() => !isUp('lte')), 'a subflow that nobody answers gives it away')
  })
  await t.test('all day, is asked now and then', async (t) => {
    let sent = 0
    const { time, isUp, asked, until } = await start(t, {
      wans: [lte],
      metered: ['lte'],
      received: () => ({ lte: 100 }),
      sent: () => {
        sent += 60
        return sent
      },
    })
    t.ok(await until(() => isUp('lte')))
    await time.advance(10_000)
    t.ok(asked.length >= 5 && asked.length <= 8, `${asked.length} times in ten seconds`)
    await time.advance(60_000)
    t.ok(asked.length <= 15, `${asked.length} times in seventy seconds`)
    t.ok(isUp('lte'))
  })
})

t.test('a WAN that is down is asked at once when it is said to', async (t) => {
  let isAlive = false
  const { time, prober, steer, asked, isUp, until } = await start(t, {
    wans: [dsl],
    metered: ['dsl'],
    probe: () => (isAlive ? answer() : silence),
  })
  // The next question comes after a minute.
  await time.advance(20 * 60_000)
  const [before, since] = [asked.length, time.now]
  isAlive = true
  prober.probeNow(steer.state.links.findIndex(({ address }) => address === dsl.address4))
  t.ok(await until(() => isUp('dsl')))
  t.ok(asked.length > before)
  t.ok(time.now - since < 1000)
})
