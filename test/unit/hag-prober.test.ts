import t, { type Test } from 'tap'
import type { Inspection, Probe, ProbeResult } from '../../src/engine/contract.js'
import { HagProber } from '../../src/gateway/hags/prober.js'
import { FakeEngine } from '../support/fake-engine.js'
import { memoryLog } from '../support/memory-log.js'
import { wanPath } from '../support/wan-path.js'

const first = { address: '203.0.113.3', port: 1080 }
const second = { address: '203.0.113.4', port: 1080 }
const dsl = wanPath('dsl', '10.1.0.2', { rttMs: 10 })
const lte = wanPath('lte', '10.2.0.2', { rttMs: 20, metered: true })

const failed = (stage: 'connect' | 'greeting' | 'authentication', code: string): ProbeResult => ({
  ok: false,
  stage,
  failure: { code, errno: 0, syscall: 'connect' },
})
const silence = failed('connect', 'ETIMEDOUT')
const refused = failed('connect', 'ECONNREFUSED')
const fine: ProbeResult = { ok: true, local: { address: '10.1.0.2', port: 1 }, protocol: 'mptcp', connectMs: 10 }

function start(
  t: Test,
  hags: (typeof first)[],
  says: (probe: Probe) => ProbeResult,
  paths = () => [dsl, lte],
  inspect: () => Inspection[] = () => [],
) {
  const log = memoryLog()
  const passed: string[] = []
  const deaths: string[] = []
  const asked: string[] = []
  const engine = new FakeEngine(
    { onEvents: () => {} },
    {
      probe(probe) {
        asked.push(`${probe.remote.address} via ${probe.bind}`)
        return says(probe)
      },
      inspect,
    },
  )
  const monitor = new HagProber({
    engine,
    log,
    paths: (family) => (family === 4 ? paths() : []),
    onChange: () => {},
    onPathAnswered: ({ wan }) => passed.push(wan),
    onDead: ({ address }, how) => deaths.push(`${address} ${how}`),
    onReturn: ({ address }) => deaths.push(`${address} returns`),
  })
  monitor.useHags(hags)
  const end = new AbortController()
  let running: Promise<void> | undefined
  t.teardown(async () => {
    end.abort()
    await running
  })
  const run = () => {
    running = monitor.run(end.signal)
  }
  const until = async (isSo: () => boolean) => {
    const deadline = performance.now() + 10_000
    while (!isSo() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 5))
    return isSo()
  }
  const usable = () => monitor.usable.map(({ address }) => address)
  return { monitor, log, passed, deaths, asked, run, until, usable }
}

t.test('at the start every HAG is asked over every WAN, and one that nobody hears from counts as down', async (t) => {
  const { monitor, log, passed, asked, usable } = start(t, [first, second], ({ remote }) =>
    remote.address === first.address ? silence : fine,
  )
  t.same(usable(), [first.address, second.address], 'before that all may work')
  const answers = await monitor.askAll(1000)
  t.equal(answers.length, 4)
  t.equal(asked.length, 4)
  t.same(passed.sort(), ['dsl', 'lte'], 'and each answer is a sign of its WAN')
  t.same(usable(), [second.address])
  t.same(
    monitor.targets(4).map(({ address }) => address),
    [second.address, first.address],
    'but its return is waited for',
  )
  t.same(monitor.targets(6), [])
  t.same(log.lines, ['info HAG 203.0.113.4:1080 is up', 'warn HAG 203.0.113.3:1080 is down: no answer'])
})

t.test('a HAG that refuses connections is down at the second refusal, whoever asked', async (t) => {
  let isDead = false
  const { monitor, log, deaths, run, until, usable } = start(t, [first], () => (isDead ? refused : fine))
  await monitor.askAll(1000)
  run()
  isDead = true
  monitor.reportTrouble(first, 'connection')
  t.ok(await until(() => usable().length === 0))
  t.same(deaths, [`${first.address} refused`])
  t.ok(log.lines.includes('warn HAG 203.0.113.3:1080 is down: connection refused, nothing listens there'))
  isDead = false
  t.ok(await until(() => usable().length === 1), 'the only HAG is used as soon as it answers')
  t.ok(log.lines.includes('info HAG 203.0.113.3:1080 answers again'))
})

t.test('a HAG that falls silent while another one answers is dead; the only one may be behind a line that is', async (t) => {
  for (const hags of [[first, second], [first]]) {
    let isSilent = false
    const { monitor, deaths, run, until, usable } = start(t, hags, ({ remote }) => {
      if (!isSilent || remote.address !== first.address) return fine
      // As a WAN's probe does: the next one, where this one is silent.
      if (hags.length > 1) setTimeout(() => monitor.recordProbe(second, fine, performance.now(), dsl))
      return silence
    })
    await monitor.askAll(1000)
    run()
    isSilent = true
    monitor.reportTrouble(first, 'connection')
    t.ok(await until(() => !usable().includes(first.address)))
    t.same(deaths, hags.length > 1 ? [`${first.address} silence`] : [])
  }
})

t.test('the only HAG is silent while the Internet answers: dead, if it is still silent when asked once more', async (t) => {
  for (const isBack of [false, true]) {
    let isSilent = false
    const { monitor, deaths, run, until, usable } = start(t, [first], () => (isSilent ? silence : fine))
    await monitor.askAll(1000)
    run()
    monitor.recordDirectAnswer()
    isSilent = true
    monitor.reportTrouble(first, 'connection')
    t.ok(await until(() => usable().length === 0))
    t.same(deaths, [], 'what was answered before says nothing')
    isSilent = !isBack
    monitor.recordDirectAnswer()
    t.ok(await until(() => deaths.length > 0))
    t.same(deaths, [isBack ? `${first.address} returns` : `${first.address} silence`])
  }
})

t.test('the other HAG is heard only after the first has fallen silent: that is its death as well', async (t) => {
  let isSilent = false
  const { monitor, deaths, run, until, usable } = start(t, [first, second], ({ remote }) =>
    isSilent && remote.address === first.address ? silence : fine,
  )
  await monitor.askAll(1000)
  await new Promise((resolve) => setTimeout(resolve, 2100))
  run()
  isSilent = true
  monitor.reportTrouble(first, 'connection')
  t.ok(await until(() => !usable().includes(first.address)))
  monitor.recordProbe(second, fine, performance.now(), dsl)
  monitor.recordProbe(second, fine, performance.now(), dsl)
  t.same(deaths, [`${first.address} silence`], 'said once')
})

t.test('both HAGs fall silent: it may be our WANs, and connections that could go on are not reset', async (t) => {
  let isSilent = false
  const { monitor, deaths, run, until, usable } = start(t, [first, second], () => (isSilent ? silence : fine))
  await monitor.askAll(1000)
  run()
  isSilent = true
  await new Promise((resolve) => setTimeout(resolve, 2100))
  for (const hag of [second, first]) monitor.reportTrouble(hag, 'connection')
  t.ok(await until(() => usable().length === 0))
  t.same(deaths, [])
})

t.test('a HAG that takes connections and says nothing is dead where there is another one', async (t) => {
  let isMute = false
  const { monitor, deaths, run, until, usable } = start(t, [first, second], ({ remote }) =>
    isMute && remote.address === first.address ? failed('greeting', 'ETIMEDOUT') : fine,
  )
  await monitor.askAll(1000)
  run()
  isMute = true
  await new Promise((resolve) => setTimeout(resolve, 1200))
  t.ok(await until(() => !usable().includes(first.address)))
  t.same(deaths, [`${first.address} silence`])
})

t.test('silence over one WAN is not the death of a HAG', async (t) => {
  let isCut = false
  const { monitor, asked, run, until, usable } = start(t, [first], ({ bind }) => (isCut && bind === '10.1.0.2' ? silence : fine))
  await monitor.askAll(1000)
  run()
  isCut = true
  const before = asked.length
  monitor.reportTrouble(first, 'connection')
  t.ok(await until(() => asked.slice(before).includes(`${first.address} via 10.2.0.2`)))
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.same(usable(), [first.address])
})

t.test('what refuses over one WAN, while the HAG answers over another, is not the HAG', async (t) => {
  let isWalled = false
  const { monitor, deaths, asked, run, until, usable } = start(t, [first], ({ bind }) =>
    isWalled && bind === '10.1.0.2' ? refused : fine,
  )
  await monitor.askAll(1000)
  run()
  isWalled = true
  const before = asked.length
  monitor.reportTrouble(first, 'connection')
  t.ok(await until(() => asked.slice(before).filter((one) => one.endsWith('10.1.0.2')).length > 2))
  t.same([usable(), deaths], [[first.address], []])
})

t.test(
  'over a WAN that is lost nobody is asked: its silence would lead to questions over the metered one without end',
  async (t) => {
    let isCut = false
    const says = ({ bind }: Probe) => (isCut && bind === '10.1.0.2' ? silence : fine)
    const { monitor, asked, run, until, usable } = start(t, [first], says, () =>
      isCut ? [lte, { ...dsl, usable: false, lost: true }] : [dsl, lte],
    )
    await monitor.askAll(1000)
    run()
    isCut = true
    monitor.reportTrouble(first, 'connection')
    const before = asked.length
    monitor.recordProbe(first, silence, performance.now(), dsl)
    t.ok(await until(() => asked.length > before))
    await new Promise((resolve) => setTimeout(resolve, 1000))
    t.ok(asked.length - before <= 3, `asked ${asked.slice(before).join(', ')}`)
    t.same(usable(), [first.address])
  },
)

t.test('why a HAG is down is said in words', async (t) => {
  const reasons: [ProbeResult, string][] = [
    [failed('greeting', 'ETIMEDOUT'), 'connected, but it does not answer'],
    [failed('greeting', 'EPROTO'), 'it does not speak SOCKS5'],
    [failed('greeting', 'ECONNRESET'), 'it closed the connection without an answer'],
    [failed('authentication', 'EACCES'), 'it asks for a user name and password'],
  ]
  for (const [result, reason] of reasons) {
    const { monitor, log } = start(t, [first], () => result)
    await monitor.askAll(1000)
    t.same(log.lines, [`warn HAG 203.0.113.3:1080 is down: ${reason}`])
  }
})

t.test('what is known of a HAG stays when the list changes', async (t) => {
  const { monitor, usable } = start(t, [first, second], ({ remote }) => (remote.address === first.address ? silence : fine))
  await monitor.askAll(1000)
  monitor.useHags([second, first, { address: '203.0.113.5', port: 1080 }])
  t.same(usable(), [second.address, '203.0.113.5'])
})

t.test('a HAG behind full up-links is busy, not dead: only questions that outlast a lost SYN count against it', async (t) => {
  const subflow = {
    local: { address: dsl.bind, port: 40_000 },
    remote: first,
    bytesSent: 1e6,
    bytesReceived: 1e6,
    rttUs: 300_000,
    unackedPackets: 4,
    lastAckMs: 100,
    timeouts: 0,
    joining: false,
  }
  const isPatient = ({ timeoutMs }: Probe) => timeoutMs > 2500
  const cases = [
    { name: 'full', answers: isPatient, dies: false },
    { name: 'full, and heard of by a WAN with its own short patience', answers: isPatient, dies: false, heardByWan: true },
    { name: 'full of losses, without a queue', change: { rttUs: 11_000, timeouts: 2 }, answers: isPatient, dies: false },
    { name: 'full, but nobody is there for the patient either', answers: () => false, dies: true },
    {
      name: 'acknowledged by its kernel over a line that is not full',
      change: { rttUs: 11_000 },
      answers: isPatient,
      dies: true,
    },
    { name: 'nothing is acknowledged', change: { lastAckMs: 5000, timeouts: 3 }, answers: isPatient, dies: true },
    { name: 'nothing is on its way', change: { unackedPackets: 0 }, answers: isPatient, dies: true },
    { name: 'full, but what answers there is no HAG', says: failed('greeting', 'EPROTO'), answers: isPatient, dies: true },
    { name: "another HAG's connections", change: { remote: second }, answers: isPatient, dies: true },
  ]
  for (const { name, change = {}, says: bad = silence, answers, dies, heardByWan = false } of cases) {
    await t.test(name, async (t) => {
      let isFull = false
      const says = (probe: Probe) => (isFull && probe.remote.address === first.address && !answers(probe) ? bad : fine)
      const client = { address: '192.168.1.20', port: 1 }
      const relayed = {
        connection: 1,
        client,
        local: client,
        remote: first,
        protocol: 'mptcp' as const,
        ageMs: 9000,
        full: false,
      }
      const inspect = () => [{ ...relayed, sent: 0, received: 0, subflows: [{ ...subflow, ...change }] }]
      const { monitor, log, run, until, usable } = start(t, [first, second], says, () => [dsl, lte], inspect)
      await monitor.askAll(1000)
      run()
      isFull = true
      monitor.reportTrouble(first, 'connection')
      for (let round = 0; heardByWan && round < 5; round++) {
        monitor.recordProbe(first, silence, performance.now(), dsl)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      const fell = () => !usable().includes(first.address)
      if (dies) t.ok(await until(fell))
      else {
        await new Promise((resolve) => setTimeout(resolve, 800))
        t.notOk(log.lines.some((line) => / is down/.test(line)))
      }
    })
  }
})
