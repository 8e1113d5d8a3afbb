/** What the probes of WANs find, from the prober's questions to the log, on a clock that the test moves. */
import t from 'tap'
import type { Inspection, Subflow } from '../../src/engine/contract.js'
import { isUsable } from '../../src/gateway/model.js'
import { dsl, hag, hag6, lte, other, start } from '../support/link-prober.js'
import { answer, failed, silence } from '../support/probing-engine.js'

t.test('a WAN over which somebody else refuses, or babbles, has no Internet', async (t) => {
  for (const wrong of [failed('connect', 'ECONNREFUSED'), failed('greeting', 'EPROTO'), failed('greeting', 'ETIMEDOUT')]) {
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
    packetsSent: 0,
    packetsSentAgain: 0,
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
  for (const says of [failed('greeting', 'EPROTO'), failed('connect', 'ECONNREFUSED')]) {
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
    probe: () => (isSilent ? { ...failed('greeting', 'ETIMEDOUT'), connectMs: 2 } : answer(2)),
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
