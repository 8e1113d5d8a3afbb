/** What the probes of WANs find, from the prober's questions to the log, on a clock that the test moves. */
import t, { type Test } from 'tap'
import type { Engine, Inspection, Probe, ProbeResult, Subflow } from '../../src/engine/contract.js'
import { isUsable } from '../../src/gateway/model.js'
import * as schedule from '../../src/gateway/steering/schedule.js'
import { wanLinks } from '../../src/gateway/steering/state.js'
import { Steer } from '../../src/gateway/steering/steer.js'
import { LinkProber } from '../../src/gateway/wans/link-prober.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'
import { VirtualTime } from '../support/virtual-time.js'

const dsl = { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' }
const lte = { name: 'lte', interface: 'lte', address4: '10.2.0.2' }
const hag = { address: '203.0.113.3', port: 1080 }
const other = { address: '203.0.113.4', port: 1080 }
const hag6 = { address: '2001:db8::3', port: 1080 }

const answer = (connectMs = 30, protocol: 'mptcp' | 'tcp' = 'mptcp'): ProbeResult => ({
  ok: true,
  local: { address: '10.1.0.2', port: 1 },
  protocol,
  connectMs,
})
const trouble = (stage: 'connect' | 'greeting', code: string): ProbeResult => ({
  ok: false,
  stage,
  failure: { code, errno: 0, syscall: 'connect' },
})
const silence = trouble('connect', 'ETIMEDOUT')

/** The rest of the world; what is left out answers, carries nothing and has no connections. */
interface World {
  probe?: (probe: Probe) => ProbeResult
  inspect?: () => Inspection[]
  /** Bytes of each device in all; none: the counters cannot be read. */
  received?: () => Record<string, number>
  sent?: () => number
  hags?: readonly (typeof hag)[]
  metered?: readonly string[]
  /** Connections; one where left out. */
  relaying?: number
  wans?: readonly { name: string; interface: string; address4?: string; address6?: string }[]
}

async function start(t: Test, world: World) {
  const { hags = [hag], metered = [], wans = [dsl, lte] } = world
  const time = new VirtualTime()
  time.start()
  t.teardown(() => time.end())
  const log = memoryLog()
  const asked: string[] = []
  /** Whether the HAG answered, as was reported of it. */
  const reported: boolean[] = []
  const engine = {
    async probe(probe: Probe) {
      asked.push(`${probe.protocol} ${probe.remote.address} via ${probe.bind}`)
      const result = world.probe?.(probe) ?? answer()
      const isSilence = !result.ok && result.failure.code === 'ETIMEDOUT' && result.connectMs === undefined
      await new Promise((resolve) => setTimeout(resolve, isSilence ? probe.connectTimeoutMs : 2))
      return result
    },
    inspect: async () => world.inspect?.() ?? [],
    stats: () => ({ relaying: world.relaying ?? 1 }),
    connect: async () => ({ ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }),
    useDevices() {},
    abandon() {},
  } as unknown as Engine
  const steer = new Steer({
    config: {
      wans: wans.map((wan) => ({ ...wan, role: 'normal', metered: metered.includes(wan.name) })),
      onHagDown: 'direct',
    },
    engine,
    emit: toLog(log),
    log,
    dropEndpoints: async () => {},
    reconcile() {},
    usePaths() {},
    onChange(before, after) {
      for (const [index, { address }] of after.links.entries())
        if (address !== before.links[index]?.address) prober.probeNow(index, true)
    },
  })
  const prober = new LinkProber({
    engine,
    log,
    links: () => steer.state.links,
    hags: (family) => hags.filter(({ address }) => address.includes(':') === (family === 6)),
    nextProbe: (link) => schedule.nextRound(steer.state, link),
    asksForMptcp: (link) => schedule.asksForMptcp(link, performance.now()),
    report: (fact) => steer.report(fact),
    reportHag: ({ result }) => reported.push(result.ok),
    counters: () =>
      new Map(
        Object.entries(world.received?.() ?? { lo: 0 }).map(([name, received]) => [
          name,
          { received, sent: world.sent?.() ?? 0 },
        ]),
      ),
  })
  const use = (planned: readonly { name: string; interface: string; address4?: string; address6?: string }[]) =>
    steer.report({ type: 'wans-planned', wans: planned })
  steer.report({ type: 'hags-changed', hags: hags.map((hag) => ({ hag, priority: '0' })) })
  use(wans)
  const end = new AbortController()
  const running = prober.run(end.signal)
  t.teardown(async () => {
    end.abort()
    await time.advance(5000)
    await running
  })
  const links = (family: 4 | 6 = 4) => wanLinks(steer.state, family)
  const isUp = (name: string) =>
    ([4, 6] as const).some((family) => links(family).some((one) => one.wan === name && isUsable(one)))
  const until = (isSo: () => boolean) => time.until(isSo)
  if (world.probe === undefined) await until(() => wans.every(({ name }) => isUp(name)))
  return { time, steer, prober, log, asked, reported, links, isUp, use, until, bothUp: () => isUp('dsl') && isUp('lte') }
}

t.test('a WAN over which somebody else refuses, or babbles, has no Internet', async (t) => {
  for (const wrong of [trouble('connect', 'ECONNREFUSED'), trouble('greeting', 'EPROTO'), trouble('greeting', 'ETIMEDOUT')]) {
    await t.test(wrong.ok ? '' : `${wrong.stage} ${wrong.failure.code}`, async (t) => {
      let isWalled = false
      const { time, bothUp, isUp, log, reported, asked, until } = await start(t, {
        probe: ({ bind }) => (isWalled && bind === '10.1.0.2' ? wrong : answer()),
      })
      t.ok(await until(bothUp))
      isWalled = true
      const line = 'warn WAN dsl is down: something on its path answers in the place of the HAGs'
      t.ok(await until(() => log.lines.includes(line)))
      t.ok(isUp('lte'))
      const before = { asked: asked.length, reported: reported.length }
      await time.advance(1200)
      const overLte = asked.slice(before.asked).filter((one) => one.endsWith('10.2.0.2'))
      t.ok(overLte.length <= 3, 'the other one is hardly asked about it')
      t.notOk(reported.slice(before.reported).includes(false), 'and the HAG is not blamed')
      isWalled = false
      t.ok(await until(() => isUp('dsl')))
    })
  }
})

t.test(
  'a WAN that carries other traffic, but no way to a HAG that answers over another WAN, is down after a while',
  async (t) => {
    let received = 0
    let isCut = false
    const { time, bothUp, isUp, log, until } = await start(t, {
      probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()),
      received: () => {
        received += 5000
        return { dsl: received, lte: 0 }
      },
    })
    t.ok(await until(bothUp))
    isCut = true
    await time.advance(5000)
    t.ok(isUp('dsl'), 'it may only be full')
    await time.advance(35_000)
    t.notOk(isUp('dsl'))
    t.ok(log.lines.includes('warn WAN dsl is down: a HAG answers over another WAN, and none over it'))
  },
)

/** A connection with one subflow over dsl. */
const overDsl = (subflow: Partial<Subflow>): Inspection[] => {
  const local = { address: '10.1.0.2', port: 40_000 }
  const rest = {
    bytesSent: 0,
    bytesReceived: 0,
    rttUs: 30_000,
    unackedPackets: 0,
    lastAckMs: 60_000,
    timeouts: 0,
    joining: false,
  }
  const subflows = [{ local, remote: hag, ...rest, ...subflow }]
  const relayed = { connection: 1, client: local, local, remote: hag, ageMs: 9000, full: false, sent: 0, received: 0 }
  return [{ ...relayed, protocol: 'mptcp', subflows }]
}

t.test('subflows tell whether a WAN that carries other traffic, and over which no HAG answers, is dead or full', async (t) => {
  const dead = overDsl({ unackedPackets: 3, timeouts: 2 })
  const full = overDsl({ unackedPackets: 90, timeouts: 1, lastAckMs: 20 })
  for (const [name, subflows] of Object.entries({ dead, full })) {
    await t.test(name, async (t) => {
      let received = 0
      let isCut = false
      const { time, bothUp, isUp, log, until } = await start(t, {
        probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()),
        inspect: () => (isCut ? subflows : []),
        received: () => {
          received += 5000
          return { dsl: received, lte: 0 }
        },
      })
      t.ok(await until(bothUp))
      isCut = true
      await time.advance(4000)
      t.equal(isUp('dsl'), name === 'full')
      if (name === 'dead') t.ok(log.lines.includes('warn WAN dsl is down: no HAG answers over it'))
    })
  }
})

t.test('counters that cannot be read: what its subflows say counts', async (t) => {
  let timeouts = 0
  let isFull = false
  const { time, bothUp, isUp, log, until } = await start(t, {
    probe: ({ bind }) => (isFull && bind === '10.1.0.2' ? silence : answer()),
    inspect: () => overDsl({ unackedPackets: 9, timeouts, lastAckMs: timeouts > 0 ? 9000 : 5, rttUs: 1000 }),
    received: () => ({}),
  })
  t.ok(await until(bothUp))
  isFull = true
  await time.advance(3500)
  t.ok(isUp('dsl'), 'filled by others, and acknowledged')
  timeouts = 1
  t.ok(await until(() => !isUp('dsl')), 'not acknowledged any more')
  t.match(log.lines.join(), /WAN dsl is down: no HAG answers over it/)
})

t.test('the silence of a WAN that is down says nothing of the HAGs', async (t) => {
  let isCut = false
  const { bothUp, isUp, reported, asked, until } = await start(t, {
    probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()),
  })
  t.ok(await until(bothUp))
  isCut = true
  t.ok(await until(() => !isUp('dsl')))
  t.ok(reported.includes(false), 'before that it may have been the HAG that was silent')
  const before = { reported: reported.length, asked: asked.length }
  t.ok(await until(() => asked.slice(before.asked).filter((one) => one.endsWith('10.1.0.2')).length > 2))
  t.notOk(reported.slice(before.reported).includes(false))
})

t.test('WANs that answer come first, by their round trip', async (t) => {
  const { bothUp, links, until } = await start(t, { probe: ({ bind }) => (bind === '10.1.0.2' ? answer(80) : answer(20)) })
  t.ok(await until(bothUp))
  t.match(links(), [
    { wan: 'lte', bind: '10.2.0.2', rttMs: 20, state: 'up', protocol: 'mptcp' },
    { wan: 'dsl', rttMs: 80 },
  ])
  t.same(links(6), [])
})

t.test('where a HAG refuses us or talks nonsense over all WANs, none is down', async (t) => {
  for (const says of [trouble('greeting', 'EPROTO'), trouble('connect', 'ECONNREFUSED')]) {
    const { time, bothUp, until } = await start(t, { probe: () => says })
    t.ok(await until(bothUp))
    await time.advance(2500)
    t.ok(bothUp())
  }
})

t.test('a WAN over which no HAG answers is down after three silences, and what happens to it is said', async (t) => {
  let isDead = false
  const { bothUp, isUp, links, use, log, until } = await start(t, {
    probe: ({ bind }) => (isDead && bind === '10.1.0.2' ? silence : answer()),
  })
  t.ok(await until(bothUp))
  isDead = true
  t.ok(await until(() => !isUp('dsl')))
  t.match(links(), [
    { wan: 'lte', state: 'up' },
    { wan: 'dsl', state: 'down' },
  ])
  t.equal(log.lines.at(-1), 'warn WAN dsl is down: no HAG answers over it')
  isDead = false
  t.ok(await until(() => isUp('dsl')), 'and back')
  t.same(log.lines.slice(-3), [
    'info WAN dsl answers again: it is used after 1 more, because it fell lately',
    'info WAN dsl is in use again',
    'info WAN dsl is up: a HAG answered in 30 ms',
  ])
  isDead = true
  t.ok(await until(() => !isUp('dsl')))
  use([lte])
  t.equal(log.lines.at(-1), 'warn WAN dsl is down: the network set-up has no way over it', 'its link is gone as well')
})

t.test('a HAG that takes connections and says nothing tells how far away it is', async (t) => {
  let isSilent = false
  const { bothUp, asked, links, until } = await start(t, {
    probe: () => (isSilent ? { ...trouble('greeting', 'ETIMEDOUT'), connectMs: 2 } : answer(2)),
  })
  t.ok(await until(bothUp))
  isSilent = true
  const before = asked.length
  t.ok(await until(() => asked.length >= before + 6))
  t.match(links()[0], { state: 'up', rttMs: 2 })
})

t.test('another HAG that answers proves the WAN', async (t) => {
  const { time, bothUp, asked, until } = await start(t, {
    hags: [hag, other],
    probe: ({ remote }) => (remote.address === hag.address ? silence : answer()),
  })
  t.ok(await until(bothUp))
  await time.advance(3000)
  t.ok(bothUp())
  t.ok(asked.some((one) => one.includes(other.address)))
})

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
  const kinds = [trouble('connect', 'ECONNREFUSED'), trouble('greeting', 'ECONNRESET'), trouble('greeting', 'EPROTO')]
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
      probe: () => trouble('connect', 'EHOSTUNREACH'),
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

t.test('MPTCP that is removed, dropped, and carried again: said, and comes after WANs that carry it', async (t) => {
  let path: 'clean' | 'strips' | 'drops' = 'strips'
  const { time, steer, prober, bothUp, links, use, log, until } = await start(t, {
    probe: ({ bind, protocol }) => {
      if (bind !== '10.1.0.2' || path === 'clean') return answer(bind === '10.1.0.2' ? 10 : 50, protocol)
      if (path === 'drops') return protocol === 'mptcp' ? silence : answer(10, 'tcp')
      return answer(10, 'tcp')
    },
  })
  t.ok(await until(bothUp))
  const stripped = 'warn WAN dsl carries no MPTCP, something on its path removes it: what begins there is not bonded'
  t.ok(log.lines.includes(stripped))
  t.match(links(), [{ wan: 'lte' }, { wan: 'dsl', protocol: 'mptcp' }], 'although dsl is quicker')
  path = 'clean'
  use([lte])
  use([dsl, lte])
  t.ok(await until(() => links()[0]?.wan === 'dsl'), 'another address is another path')
  path = 'drops'
  await time.advance(2100)
  steer.report({ type: 'mptcp-fell-back', bind: '10.1.0.2' })
  prober.probeNow(0)
  t.ok(await until(() => log.lines.some((line) => line.includes('something on its path drops it'))))
  t.match(links(), [{ wan: 'lte' }, { wan: 'dsl', state: 'up', protocol: 'tcp' }])
})

t.test('each family for itself', async (t) => {
  const { isUp, links, log, until } = await start(t, {
    hags: [hag, hag6],
    wans: [{ ...dsl, address6: '2001:db8:1::2' }],
    probe: ({ bind = '' }) => (bind.includes(':') ? silence : answer()),
  })
  t.ok(await until(() => log.lines.includes('warn WAN dsl (IPv6) is down: no HAG answers over it')))
  t.match(links(6), [{ wan: 'dsl', bind: '2001:db8:1::2', state: 'down' }])
  t.ok(isUp('dsl'))
})

t.test('a WAN whose address goes is no path any more, and one that comes back starts afresh', async (t) => {
  const { links, use, log, until } = await start(t, {})
  const before = log.lines.length
  use([lte])
  t.same(
    links().map(({ wan }) => wan),
    ['lte'],
  )
  const uses = (address: string) => () => links().some((link) => link.bind === address && isUsable(link))
  use([{ ...dsl, address4: '10.1.0.77' }, lte])
  t.ok(await until(uses('10.1.0.77')))
  use([{ ...dsl, address4: '10.1.0.78' }, lte])
  t.match(links(), [{ wan: 'lte' }, { wan: 'dsl', bind: '10.1.0.78', state: 'probing', rttMs: undefined }])
  t.ok(await until(uses('10.1.0.78')))
  use([lte])
  t.same(
    log.lines.slice(before).filter((line) => !/answers again|in use again/.test(line)),
    [
      'warn WAN dsl is down: the network set-up has no way over it',
      'info WAN dsl is probing: its address is 10.1.0.77',
      'info WAN dsl is up: a HAG answered in 30 ms',
      'info WAN dsl is probing: its address is 10.1.0.78',
      'info WAN dsl is up: a HAG answered in 30 ms',
      'warn WAN dsl is down: the network set-up has no way over it',
    ],
    'each change is said once, with its reason',
  )
})
