/** What the probes of HAGs find, from the prober's questions to what is done and said, on a clock that the test moves. */
import t, { type Test } from 'tap'
import type { Inspection, Probe, ProbeResult } from '../../../src/engine/contract.js'
import { reportProbe } from '../../../src/gateway/hag-facts.js'
import { HagProber } from '../../../src/gateway/hags/hag-prober.js'
import { type Hag, isSameHag } from '../../../src/gateway/model.js'
import { admissionDueAt, isRefused } from '../../../src/gateway/steering/admissions.js'
import * as schedule from '../../../src/gateway/steering/schedule.js'
import { linksByCost, wanLinks } from '../../../src/gateway/steering/state.js'
import { Steer } from '../../../src/gateway/steering/steer.js'
import { toLog } from '../../../src/telemetry/events.js'
import { memoryLog } from '../../support/memory-log.js'
import { paceOf } from '../../support/pace.js'
import { answer, failed, probingEngine, silence } from '../../support/probing-engine.js'
import { dsl, first, lte, overDsl, overLte, second } from '../../support/steering.js'
import { virtualTime } from '../../support/virtual-time.js'

const refused = failed('connect', 'ECONNREFUSED')
const fine = answer(10)

/** DSL answers in 10 ms; LTE, in 20 ms, is metered. */
async function start(t: Test, hags: readonly Hag[], probe: (probe: Probe) => ProbeResult, inspect?: () => Inspection[]) {
  const time = virtualTime(t)
  const log = memoryLog()
  /** Connections over a HAG that were reset, or made to find out themselves. */
  const done: string[] = []
  const { engine, asked } = probingEngine(
    { probe, answerMs: 10, silenceMs: ({ timeoutMs }) => timeoutMs, inspect, relaying: 3 },
    {
      async resetConnectionsTo({ address }: Hag) {
        done.push(`reset ${address}`)
        return 0
      },
      resetStranded: async () => 0,
      watchConnectionsTo: ({ address }: Hag, isOn: boolean) => isOn && done.push(`wake ${address}`),
    },
  )
  const steer = new Steer({
    config: {
      wans: [
        { ...dsl, role: 'normal', metered: false },
        { ...lte, role: 'normal', metered: true },
      ],
      onHagDown: 'direct',
    },
    engine,
    emit: toLog(log),
    log,
    dropEndpoints: async () => {},
    reconcile() {},
    usePaths() {},
    onChange: () => prober.look(),
  })
  let looks = 0
  const stateOf = (hag: Hag) => steer.state.hags.find((one) => isSameHag(one.hag, hag))
  const prober = new HagProber({
    engine,
    pace: paceOf(),
    log,
    examine: async () => ({ state: 'works', isRefused: false, pipelines: true }),
    hags() {
      looks += 1
      return steer.state.hags
    },
    greetingDueAt(one) {
      const how = { inUse: steer.target.usableHags[0], isRelaying: true, isCalm: false }
      return schedule.greetingDueAt(steer.state, one, how)
    },
    requestDueAt: (one) => schedule.requestDueAt(steer.state, one),
    isAdmissionDue: (hag, link) => performance.now() >= admissionDueAt(steer.state.admissions, hag, link),
    isRefused: (hag, bind) => isRefused(steer.state.admissions, hag, bind),
    links: () => wanLinks(steer.state, 4),
    linksByCost: (hag) => linksByCost(steer.state, hag),
    cheapestLink: (hag) => schedule.cheapestLink(steer.state, hag),
    report: (fact) => steer.report(fact),
    reportHag: (probed) =>
      reportProbe(probed, {
        engine,
        linksTo: () => wanLinks(steer.state, 4),
        isDown: (hag) => stateOf(hag)?.health.state === 'down',
        report: (fact) => steer.report(fact),
      }),
    onAnswered() {},
  })
  steer.report({ type: 'hags-changed', hags: hags.map((hag, index) => ({ hag, priority: `${index}` })) })
  steer.report({ type: 'wans-planned', wans: [dsl, lte] })
  const wansAnswer = () => {
    for (const [index, { bind }] of [overDsl, overLte].entries())
      steer.report({ type: 'wan-answered', bind, rttMs: 10 * (index + 1) })
  }
  wansAnswer()
  const end = new AbortController()
  let running: Promise<void> | undefined
  t.teardown(async () => {
    end.abort()
    await time.advance(10_000)
    await running
  })
  const until = (isSo: () => boolean) => time.until(isSo)
  const askAll = async () => {
    const answers = prober.askAll(1000, hags)
    await time.advance(1100)
    return answers
  }
  /** All HAGs answer at the start, and it goes on. */
  const begin = async () => {
    await askAll()
    running = prober.run(end.signal)
    await time.advance(3000)
    log.lines.length = 0
  }
  const trouble = (hag: Hag) => steer.report({ type: 'hag-trouble', hag, about: 'connection' })
  const usable = () => steer.target.usableHags.map(({ address }) => address)
  return { time, steer, log, asked, done, until, askAll, begin, trouble, usable, looks: () => looks }
}

t.test('at the start every HAG is asked over every WAN, and one that nobody hears from counts as down', async (t) => {
  const { log, asked, askAll, usable } = await start(t, [first, second], ({ remote }) =>
    remote.address === first.address ? silence : fine,
  )
  t.same(usable(), [first.address, second.address], 'before that all may work')
  const answers = await askAll()
  t.equal(answers.length, 4)
  t.equal(asked.length, 4)
  t.same(usable(), [second.address])
  t.same(
    log.lines.filter((line) => line.includes('HAG 2')),
    ['info HAG 203.0.113.4:1080 is up', 'warn HAG 203.0.113.3:1080 is down: no answer'],
  )
})

t.test('a HAG that refuses connections is down at the second refusal, and used again as soon as it answers', async (t) => {
  let isDead = false
  const { log, done, begin, trouble, until, usable } = await start(t, [first], () => (isDead ? refused : fine))
  await begin()
  isDead = true
  trouble(first)
  t.ok(await until(() => usable().length === 0))
  t.same(done, [], 'its kernel has reset them')
  t.ok(log.lines.includes('warn HAG 203.0.113.3:1080 is down: connection refused, nothing listens there'))
  isDead = false
  t.ok(await until(() => usable().length === 1))
  t.ok(log.lines.includes('info HAG 203.0.113.3:1080 answers again'))
})

t.test('a HAG that falls silent while another one answers is dead; the only one may be behind a line that is', async (t) => {
  for (const hags of [[first, second], [first]]) {
    let isSilent = false
    const { done, begin, trouble, until, usable, time } = await start(t, hags, ({ remote }) =>
      isSilent && remote.address === first.address ? silence : fine,
    )
    await begin()
    isSilent = true
    trouble(first)
    t.ok(await until(() => !usable().includes(first.address)))
    // The other one is asked because of that.
    await time.advance(1000)
    t.same(done, hags.length > 1 ? [`reset ${first.address}`] : [])
    isSilent = false
    t.ok(await until(() => usable().includes(first.address)))
    t.equal(done.at(-1), `wake ${first.address}`)
  }
})

t.test('the only HAG is silent while the Internet answers: dead, if it is still silent when asked once more', async (t) => {
  for (const isBack of [false, true]) {
    let isSilent = false
    const { steer, done, begin, trouble, until, usable } = await start(t, [first], () => (isSilent ? silence : fine))
    const direct = () => steer.report({ type: 'direct-answered', path: overDsl })
    await begin()
    direct()
    isSilent = true
    trouble(first)
    t.ok(await until(() => usable().length === 0))
    t.same(done, [], 'what was answered before says nothing')
    isSilent = !isBack
    direct()
    t.ok(await until(() => done.length > 0))
    t.same(done, [`${isBack ? 'wake' : 'reset'} ${first.address}`])
  }
})

t.test('both HAGs fall silent: it may be our WANs, and connections that could go on are not reset', async (t) => {
  let isSilent = false
  const { time, done, begin, trouble, until, usable } = await start(t, [first, second], () => (isSilent ? silence : fine))
  await begin()
  isSilent = true
  for (const hag of [second, first]) trouble(hag)
  t.ok(await until(() => usable().length === 0))
  await time.advance(60_000)
  t.same(done, [])
})

t.test('silence over one WAN is not the death of a HAG, nor is a refusal on the path of one', async (t) => {
  for (const wrong of [silence, refused]) {
    let isWrong = false
    const { time, asked, done, begin, trouble, usable } = await start(t, [first], ({ bind }) =>
      isWrong && bind === overDsl.bind ? wrong : fine,
    )
    await begin()
    isWrong = true
    const before = asked.length
    trouble(first)
    await time.advance(3000)
    t.ok(asked.slice(before).some((one) => one.endsWith(`${first.address} via ${overLte.bind}`)))
    t.same([usable(), done], [[first.address], []])
  }
})

t.test(
  'over a WAN that is down nobody is asked: its silence would lead to questions over the metered one without end',
  async (t) => {
    let isCut = false
    const { time, steer, asked, begin, trouble, usable } = await start(t, [first], ({ bind }) =>
      isCut && bind === overDsl.bind ? silence : fine,
    )
    await begin()
    isCut = true
    for (let times = 0; times < 3; times++)
      steer.report({ type: 'wan-silent', bind: overDsl.bind, reason: 'no HAG answers over it', isSure: true })
    const before = asked.length
    trouble(first)
    await time.advance(60_000)
    t.ok(asked.length - before <= 3, asked.slice(before).join(', '))
    t.same(usable(), [first.address])
  },
)

t.test('why a HAG is down is said in words', async (t) => {
  const where = ' over dsl, from 10.1.0.2'
  const reasons: [ProbeResult, string][] = [
    [failed('greeting', 'ETIMEDOUT'), 'connected, but it does not answer'],
    [failed('greeting', 'EPROTO'), 'it does not speak SOCKS5'],
    [failed('greeting', 'ECONNRESET'), `it closed the connection without an answer${where}`],
    [failed('authentication', 'EACCES'), 'it asks for a user name and password: set username and password_file'],
    [refused, 'connection refused, nothing listens there'],
    [failed('connect', 'EACCES'), 'a firewall prohibits it'],
    [failed('connect', 'EHOSTUNREACH'), 'no route to it'],
  ]
  for (const [result, reason] of reasons) {
    await t.test(reason, async (t) => {
      let isBad = false
      const { log, begin, trouble, until, usable } = await start(t, [first], () => (isBad ? result : fine))
      await begin()
      isBad = true
      trouble(first)
      t.ok(await until(() => usable().length === 0))
      t.equal(log.lines[0], `warn HAG 203.0.113.3:1080 is down: ${reason}`)
    })
  }
})

t.test('a HAG behind full up-links is busy, not dead: only questions that outlast a lost SYN count against it', async (t) => {
  const subflow = {
    local: { address: overDsl.bind, port: 40_000 },
    remote: first,
    bytesSent: 1e6,
    bytesReceived: 1e6,
    rttUs: 300_000,
    unackedPackets: 4,
    lastAckMs: 100,
    timeouts: 0,
    joining: false,
    packetsSent: 0,
    packetsSentAgain: 0,
  }
  const isPatient = ({ timeoutMs }: Probe) => timeoutMs > 2500
  const cases = [
    { name: 'full', answers: isPatient, dies: false },
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
  for (const { name, change = {}, says: bad = silence, answers, dies } of cases) {
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
      const { time, log, begin, trouble } = await start(t, [first, second], says, inspect)
      await begin()
      isFull = true
      trouble(first)
      await time.advance(30_000)
      t.equal(
        log.lines.some((line) => / is down/.test(line)),
        dies,
      )
    })
  }
})

t.test('while nothing changes it sleeps from question to question', async (t) => {
  const { time, begin, looks, asked } = await start(t, [first], () => fine)
  await begin()
  const before = { looks: looks(), asked: asked.length }
  await time.advance(60_000)
  const questions = asked.length - before.asked
  t.ok(questions > 50, `${questions} questions`)
  t.ok(looks() - before.looks <= 4 * questions, `${looks() - before.looks} looks`)
})
