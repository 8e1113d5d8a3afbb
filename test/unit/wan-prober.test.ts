import t, { type Test } from 'tap'
import type { Inspection, Probe, ProbeResult, Subflow } from '../../src/engine/contract.js'
import { WanProber, type WanProberOptions } from '../../src/gateway/wans/prober.js'
import { memoryLog } from '../support/memory-log.js'

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

interface Far {
  inspect?: () => Inspection[]
  probe?: (probe: Probe) => ProbeResult
  hags?: WanProberOptions['hags']
  wans?: WanProberOptions['wans']
  received?: () => Record<string, number>
  sent?: () => number
}

function start(
  t: Test,
  far: Far,
  lines: { name: string; interface: string; address4?: string; address6?: string }[] = [dsl, lte],
) {
  const log = memoryLog()
  const asked: string[] = []
  const heard: boolean[] = []
  const turnedAway: string[] = []
  const end = new AbortController()
  let changes = 0
  const monitor = new WanProber({
    engine: {
      inspect: async () => far.inspect?.() ?? [],
      connect: async () => ({ ok: false, failure: { code: 'ETIMEDOUT', errno: 110, syscall: 'connect' } }),
      async probe(probe) {
        asked.push(`${probe.protocol} ${probe.remote.address} via ${probe.bind}`)
        const result = far.probe?.(probe) ?? answer()
        // The engine never answers in the same turn, and a silence takes its time.
        await new Promise((resolve) => setTimeout(resolve, result.ok ? 2 : result.failure.code === 'ETIMEDOUT' ? 40 : 2))
        return result
      },
    },
    wans: far.wans ?? [
      { name: 'dsl', metered: false },
      { name: 'lte', metered: false },
    ],
    hags: far.hags ?? ((family) => (family === 4 ? [hag] : [])),
    onHagProbed: (_, { ok }) => heard.push(ok),
    onTurnedAway: (_, { wan }, how) => turnedAway.push(`${wan} ${how}`),
    onChange: () => {
      changes += 1
    },
    counters: () =>
      new Map(
        Object.entries(far.received?.() ?? { lo: 0 }).map(([name, received]) => [name, { received, sent: far.sent?.() ?? 0 }]),
      ),
    log,
  })
  monitor.useWans(lines)
  const running = monitor.run(end.signal)
  t.teardown(async () => {
    end.abort()
    await running
  })
  const until = async (isSo: () => boolean) => {
    const deadline = performance.now() + 10_000
    while (!isSo() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5))
    return isSo()
  }
  return { monitor, log, asked, heard, turnedAway, until, changes: () => changes }
}

t.test('a WAN over which somebody else refuses, or babbles, has no Internet', async (t) => {
  for (const wrong of [trouble('connect', 'ECONNREFUSED'), trouble('greeting', 'EPROTO'), trouble('greeting', 'ETIMEDOUT')]) {
    let isWalled = false
    const { monitor, log, heard, asked, until } = start(t, {
      probe: ({ bind }) => (isWalled && bind === '10.1.0.2' ? wrong : answer()),
    })
    t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
    isWalled = true
    const line = 'warn WAN dsl is down: something on its path answers in the place of the HAGs'
    t.ok(await until(() => log.lines.includes(line)))
    t.equal(monitor.isUsable('lte'), true)
    const before = { asked: asked.length, heard: heard.length }
    await new Promise((resolve) => setTimeout(resolve, 1200))
    t.ok(
      asked.slice(before.asked).filter((one) => one.endsWith('10.2.0.2')).length <= 3,
      'the other one is hardly asked about it',
    )
    t.notOk(heard.slice(before.heard).includes(false), 'and the HAG is not blamed')
    isWalled = false
    t.ok(await until(() => monitor.isUsable('dsl')))
  }
})

t.test(
  'a WAN that carries other traffic, but no way to a HAG that answers over another WAN, is down after a while',
  async (t) => {
    let received = 0
    let isCut = false
    const { monitor, log, until } = start(t, {
      probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()),
      received: () => {
        received += 5000
        return { dsl: received, lte: 0 }
      },
    })
    t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
    isCut = true
    await new Promise((resolve) => setTimeout(resolve, 15_000))
    t.equal(monitor.isUsable('dsl'), true, 'it may only be full')
    t.ok(await until(() => log.lines.includes('warn WAN dsl is down: a HAG answers over another WAN, and none over it')))
  },
)

/** A connection with one subflow over dsl. */
const overDsl = (subflow: Partial<Subflow>): Inspection[] => {
  const local = { address: '10.1.0.2', port: 40_000 }
  const remote = { address: hag.address, port: hag.port }
  const rest = {
    bytesSent: 0,
    bytesReceived: 0,
    rttUs: 30_000,
    unackedPackets: 0,
    lastAckMs: 60_000,
    timeouts: 0,
    joining: false,
  }
  const subflows = [{ local, remote, ...rest, ...subflow }]
  const relayed = { connection: 1, client: local, local, remote, ageMs: 9000, full: false, sent: 0, received: 0 }
  return [{ ...relayed, protocol: 'mptcp', subflows }]
}

t.test('subflows tell whether a WAN that carries other traffic, and over which no HAG answers, is dead or full', async (t) => {
  const dead = overDsl({ unackedPackets: 3, timeouts: 2 })
  const full = overDsl({ unackedPackets: 90, timeouts: 1, lastAckMs: 20 })
  for (const subflows of [dead, full]) {
    let received = 0
    let isCut = false
    const { monitor, log, until } = start(t, {
      probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()),
      inspect: () => (isCut ? subflows : []),
      received: () => {
        received += 5000
        return { dsl: received, lte: 0 }
      },
    })
    t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
    isCut = true
    if (subflows === dead) {
      t.ok(await until(() => !monitor.isUsable('dsl')))
      t.ok(log.lines.includes('warn WAN dsl is down: no HAG answers over it'))
    } else {
      await new Promise((resolve) => setTimeout(resolve, 4000))
      t.equal(monitor.isUsable('dsl'), true)
    }
  }
})

t.test('counters that cannot be read: what its subflows say counts', async (t) => {
  let timeouts = 0
  let isFull = false
  const subflow = () => ({
    local: { address: '10.1.0.2', port: 1 },
    remote: hag,
    unackedPackets: 9,
    timeouts,
    lastAckMs: timeouts > 0 ? 9000 : 5,
    rttUs: 1000,
  })
  const { log, monitor, until } = start(t, {
    probe: ({ bind }) => (isFull && bind === '10.1.0.2' ? silence : answer()),
    inspect: () => [{ subflows: [subflow() as unknown as Subflow] } as unknown as Inspection],
    received: () => ({}),
  })
  t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
  isFull = true
  await new Promise((resolve) => setTimeout(resolve, 3500))
  t.ok(monitor.isUsable('dsl'), 'filled by others, and acknowledged')
  timeouts = 1
  t.ok(await until(() => !monitor.isUsable('dsl')), 'not acknowledged any more')
  t.match(log.lines.join(), /WAN dsl is down: no HAG answers over it/)
})

t.test('the silence of a WAN that is down says nothing of the HAGs', async (t) => {
  let isCut = false
  const { monitor, heard, asked, until } = start(t, { probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()) })
  t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
  isCut = true
  t.ok(await until(() => !monitor.isUsable('dsl')))
  t.ok(heard.includes(false), 'while it may have been the HAG that was told')
  const [heardBefore, askedBefore] = [heard.length, asked.length]
  const asks = () => asked.slice(askedBefore).filter((one) => one.endsWith('10.1.0.2')).length
  t.ok(await until(() => asks() > 2))
  t.notOk(heard.slice(heardBefore).includes(false))
})

t.test('WANs that answer come first, by their round trip', async (t) => {
  const { monitor, until, changes } = start(t, {
    probe: ({ bind }) => (bind === '10.1.0.2' ? answer(80) : answer(20)),
  })
  t.ok(await until(() => monitor.paths(4).every(({ usable }) => usable)))
  t.match(monitor.paths(4), [
    { wan: 'lte', bind: '10.2.0.2', rttMs: 20, lost: false, protocol: 'mptcp' },
    { wan: 'dsl', rttMs: 80 },
  ])
  t.same(monitor.paths(6), [])
  t.ok(changes() > 0)
})

t.test(
  'a WAN over which no HAG answers is lost after three silences, and said; where a HAG refuses us or talks nonsense over all of them, none is',
  async (t) => {
    const dead = new Set<string>()
    let says = trouble('greeting', 'EPROTO')
    const { monitor, log, until } = start(t, { probe: ({ bind = '' }) => (dead.has(bind) ? silence : says) })
    t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
    says = trouble('connect', 'ECONNREFUSED')
    await new Promise((resolve) => setTimeout(resolve, 2500))
    t.ok(monitor.isUsable('dsl') && monitor.isUsable('lte'))
    says = answer()
    t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
    dead.add('10.1.0.2')
    t.ok(await until(() => !monitor.isUsable('dsl')))
    t.match(monitor.paths(4), [
      { wan: 'lte', usable: true },
      { wan: 'dsl', usable: false, lost: true },
    ])
    t.ok(log.lines.includes('warn WAN dsl is down: no HAG answers over it'))
    monitor.useWans([lte], 'interface dsl has no carrier')
    t.equal(log.lines.at(-1), 'warn WAN dsl is down: interface dsl has no carrier', 'its link is gone as well')
    monitor.useWans([dsl, lte])
    dead.clear()
    t.ok(await until(() => monitor.isUsable('dsl')), 'and back')
    t.same(log.lines.slice(-2), [
      'info WAN dsl answers again: it is used after 1 more, because it fell lately',
      'info WAN dsl is up: a HAG answered in 30 ms',
    ])
  },
)

t.test('a HAG that takes connections and says nothing tells how far away it is', async (t) => {
  let isSilent = false
  const { monitor, asked, until } = start(t, {
    probe: () => (isSilent ? { ...trouble('greeting', 'ETIMEDOUT'), connectMs: 2 } : answer(2)),
  })
  t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
  isSilent = true
  const before = asked.length
  t.ok(await until(() => asked.length >= before + 6))
  const [path] = monitor.paths(4)
  t.ok(path?.usable)
  t.ok((path?.rttMs ?? 99) < 15, `${path?.rttMs} ms`)
})

t.test('another HAG that answers proves the WAN', async (t) => {
  const { monitor, asked, until } = start(t, {
    hags: (family) => (family === 4 ? [hag, other] : []),
    probe: ({ remote }) => (remote.address === hag.address ? silence : answer()),
  })
  t.ok(await until(() => monitor.isUsable('dsl') && monitor.isUsable('lte')))
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.ok(monitor.isUsable('dsl') && monitor.isUsable('lte'))
  t.ok(await until(() => asked.some((one) => one.includes(other.address))))
})

t.test('a steady stream that stops: asked at once, and lost within half a second', async (t) => {
  let received = 0
  let isCut = false
  const timer = setInterval(() => {
    if (!isCut) received += 5000
  }, 5)
  t.teardown(() => clearInterval(timer))
  const { monitor, log, until } = start(t, {
    received: () => ({ dsl: received, lte: 0 }),
    probe: ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : answer()),
  })
  t.ok(await until(() => monitor.isUsable('dsl')))
  await new Promise((resolve) => setTimeout(resolve, 1000))
  isCut = true
  t.ok(await until(() => !monitor.isUsable('dsl')))
  t.ok(log.lines.includes('warn WAN dsl is down: what it carried has stopped, and no HAG answers over it'))
  t.ok(monitor.isUsable('lte'))
})

t.test('a stream that ends is not a dead WAN', async (t) => {
  let received = 0
  let isOver = false
  const timer = setInterval(() => {
    if (!isOver) received += 5000
  }, 5)
  t.teardown(() => clearInterval(timer))
  const { monitor, log, asked, until } = start(t, { received: () => ({ dsl: received, lte: 0 }) })
  t.ok(await until(() => monitor.isUsable('dsl')))
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const before = asked.length
  isOver = true
  await new Promise((resolve) => setTimeout(resolve, 400))
  t.ok(await until(() => asked.slice(before).filter((one) => one.endsWith('10.1.0.2')).length >= 2), 'it was asked')
  t.notMatch(log.lines.join(), /down/)
})

t.test('an idle metered WAN is asked once', async (t) => {
  const { monitor, asked, until } = start(t, {
    wans: [
      { name: 'dsl', metered: false },
      { name: 'lte', metered: true },
    ],
  })
  t.ok(await until(() => monitor.isUsable('lte')))
  await new Promise((resolve) => setTimeout(resolve, 2500))
  t.equal(asked.filter((one) => one.endsWith('10.2.0.2')).length, 1)
  t.ok(await until(() => asked.filter((one) => one.endsWith('10.1.0.2')).length >= 3))
})

t.test('an idle metered WAN over which something is sent and nothing comes back is asked', async (t) => {
  let sent = 0
  let isDead = false
  const { monitor, asked, until } = start(t, {
    wans: [{ name: 'lte', metered: true }],
    received: () => ({ lte: 100 }),
    sent: () => sent,
    probe: () => (isDead ? silence : answer()),
  })
  t.ok(await until(() => monitor.isUsable('lte')))
  await new Promise((resolve) => setTimeout(resolve, 1500))
  t.equal(asked.length, 1)
  isDead = true
  sent += 60
  t.ok(await until(() => !monitor.isUsable('lte')), 'a subflow that nobody answers gives it away')
})

t.test('a metered WAN over which somebody sends into the void all day is asked a few times', async (t) => {
  let sent = 0
  const { monitor, asked, until } = start(t, {
    wans: [{ name: 'lte', metered: true }],
    received: () => ({ lte: 100 }),
    sent: () => {
      sent += 60
      return sent
    },
  })
  t.ok(await until(() => monitor.isUsable('lte')))
  await new Promise((resolve) => setTimeout(resolve, 10_000))
  t.ok(asked.length >= 5 && asked.length <= 8, `${asked.length} times in ten seconds`)
  t.ok(monitor.isUsable('lte'))
})

t.test('a WAN that is down is asked at once when another question over it got its answer', async (t) => {
  let alive = false
  const { monitor, asked, until } = start(
    t,
    { probe: () => (alive ? answer() : silence), wans: [{ name: 'dsl', metered: true }] },
    [dsl],
  )
  // Four silences: the next question comes after more than three seconds.
  t.ok(await until(() => asked.length >= 7))
  const before = asked.length
  alive = true
  const since = performance.now()
  monitor.pathAnswered(dsl.address4)
  t.ok(await until(() => asked.length > before))
  t.ok(performance.now() - since < 1000)
  t.ok(await until(() => monitor.isUsable('dsl')))
})

t.test('MPTCP that is removed, dropped, and carried again: said, and comes after WANs that carry it', async (t) => {
  let path: 'clean' | 'strips' | 'drops' = 'strips'
  const { monitor, log, until } = start(t, {
    probe: ({ bind, protocol }) => {
      if (bind !== '10.1.0.2' || path === 'clean') return answer(bind === '10.1.0.2' ? 10 : 50, protocol)
      if (path === 'drops') return protocol === 'mptcp' ? silence : answer(10, 'tcp')
      return answer(10, 'tcp')
    },
  })
  t.ok(await until(() => monitor.paths(4).every(({ usable }) => usable)))
  const stripped = 'warn WAN dsl carries no MPTCP, something on its path removes it: what begins there is not bonded'
  t.ok(log.lines.includes(stripped))
  t.match(monitor.paths(4), [{ wan: 'lte' }, { wan: 'dsl', protocol: 'mptcp' }], 'although dsl is quicker')
  path = 'clean'
  monitor.useWans([lte])
  monitor.useWans([dsl, lte])
  t.ok(await until(() => monitor.paths(4)[0]?.wan === 'dsl'), 'another address is another path')
  path = 'drops'
  await new Promise((resolve) => setTimeout(resolve, 2100))
  monitor.mptcpFellBack('10.1.0.2')
  t.ok(await until(() => log.lines.some((line) => line.includes('something on its path drops it'))))
  t.match(monitor.paths(4), [{ wan: 'lte' }, { wan: 'dsl', usable: true, protocol: 'tcp' }])
})

t.test('each family for itself', async (t) => {
  const { monitor, log, until } = start(
    t,
    {
      hags: (family) => [family === 4 ? hag : hag6],
      probe: ({ bind = '' }) => (bind.includes(':') ? silence : answer()),
    },
    [{ ...dsl, address6: '2001:db8:1::2' }],
  )
  t.ok(await until(() => log.lines.includes('warn WAN dsl (IPv6) is down: no HAG answers over it')))
  t.match(monitor.paths(6), [{ wan: 'dsl', bind: '2001:db8:1::2', lost: true }])
  t.ok(await until(() => monitor.paths(4)[0]?.usable === true))
  t.ok(monitor.isUsable('dsl'))
})

t.test('a WAN whose address goes is no path any more, and one that comes back starts afresh', async (t) => {
  const { monitor, log, until } = start(t, {})
  t.ok(await until(() => monitor.isUsable('dsl')))
  t.ok(await until(() => monitor.isUsable('lte')))
  const before = log.lines.length
  monitor.useWans([lte], 'interface dsl was deleted')
  t.same(
    monitor.paths(4).map(({ wan }) => wan),
    ['lte'],
  )
  const uses = (address: string) => () => monitor.paths(4).some(({ bind, usable }) => bind === address && usable)
  monitor.useWans([{ ...dsl, address4: '10.1.0.77' }, lte])
  t.ok(await until(uses('10.1.0.77')))
  monitor.useWans([{ ...dsl, address4: '10.1.0.78' }, lte])
  t.match(monitor.paths(4), [{ wan: 'lte' }, { wan: 'dsl', bind: '10.1.0.78', usable: false, rttMs: undefined }])
  t.ok(await until(uses('10.1.0.78')))
  monitor.useWans([lte])
  t.same(
    log.lines.slice(before).filter((line) => !line.includes('answers again')),
    [
      'warn WAN dsl is down: interface dsl was deleted',
      'info WAN dsl is probing: its address is 10.1.0.77',
      'info WAN dsl is up: a HAG answered in 30 ms',
      'info WAN dsl is probing: its address is 10.1.0.78',
      'info WAN dsl is up: a HAG answered in 30 ms',
      'warn WAN dsl is down: the network set-up has no way over it',
    ],
    'each change is said once, with its reason',
  )
})
