/** Which paths connections and what is not redirected take while HAGs or WANs fail. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { outcome, refused, silence, start, unreachable, until, wans } from '../support/fake-gateway.js'
import { settle } from '../support/far-side.js'

t.test('no HAG and on_hag_down reject: says so and runs', async (t) => {
  const { engines, stop, deeds, log, ended } = start({ probe: () => unreachable }, { more: 'on_hag_down: reject\n' })
  await until(() => log.lines.includes('info gateway runs'))
  t.ok(
    log.lines.includes(
      'warn no HAG can be reached: connections are refused (on_hag_down): ' +
        'HAG 203.0.113.3:1080 over dsl: no answer; HAG 203.0.113.3:1080 over lte: no answer',
    ),
  )
  t.equal(deeds.at(-1), 'apply')
  engines[0]?.accept()
  await settle()
  t.notOk(
    engines[0]?.opens.some(({ spec }) => spec.remote.address === '198.51.100.7'),
    'nothing goes direct',
  )
  stop.abort()
  engines[0]?.leave(1)
  t.equal(await outcome(ended), undefined)
})

t.test('while connections drain, what works stays where it is', async (t) => {
  const { engines, stop, log, withheld, best, watched, ended } = start({
    probe: ({ bind = '' }) =>
      bind === '10.1.0.2' ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 9 },
  })
  await until(() => log.lines.includes('info gateway runs') && best.at(-1) === 'lte' && withheld.at(-1) === 'dsl')
  engines[0]?.accept()
  await settle()
  const before = best.length
  stop.abort()
  await until(() => best.length > before)
  t.same([best.at(-1), withheld.at(-1)], ['lte', 'dsl'])
  t.equal(watched.length, 1)
  engines[0]?.leave(1)
  t.equal(await outcome(ended), undefined)
})

t.test('no HAG and on_hag_down direct: says so once and runs', async (t) => {
  const { engines, stop, log, ended } = start({
    probe: () => unreachable,
  })
  await until(() => log.lines.includes('info gateway runs'))
  t.equal(log.lines.filter((line) => line.startsWith('warn no HAG can be reached: connections go direct')).length, 1)
  engines[0]?.accept()
  await settle()
  t.equal(engines[0]?.opens[0]?.spec.remote.address, '198.51.100.7')
  engines[0]?.leave(1)
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('no HAG answers any more: connections go around it over the first WAN, whatever the other one is', async (t) => {
  const greets = (code: string) => ({ ...refused, stage: 'greeting', failure: { ...silence, code }, connectMs: 0 }) as const
  const kinds = {
    'takes connections and says nothing': greets('ETIMEDOUT'),
    'resets what it takes': greets('ECONNRESET'),
    babbles: greets('EPROTO'),
    'takes no connections': unreachable,
  }
  for (const [what, trouble] of Object.entries(kinds)) {
    let isDead = false
    const { engines, stop, log, ended } = start({
      probe({ bind = '' }) {
        const connectMs = bind === '10.1.0.2' ? 60 : 40
        if (!isDead) return { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs }
        return 'connectMs' in trouble ? { ...trouble, connectMs } : trouble
      },
    })
    await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
    isDead = true
    await until(() => log.lines.some((line) => /HAG \S+ is down/.test(line)))
    // Where nothing answers, the first WAN falls too: it is asked every second, the other one is not.
    if (trouble === unreachable) await until(() => log.lines.some((line) => /WAN dsl is down/.test(line)))
    const [engine] = engines
    engine?.accept()
    await settle()
    t.match(engine?.opens.at(-1)?.spec, { remote: { address: '198.51.100.7' }, bind: '10.1.0.2' }, what)
    engine?.leave(1)
    stop.abort()
    t.equal(await outcome(ended), undefined)
  }
})

t.test('no HAG answers over any WAN: what is not redirected follows the connections that are answered', async (t) => {
  let isDead = false
  const answer = ({ bind }: { bind?: string }) => (isDead && bind === '10.1.0.2' ? ('silence' as const) : ('opened' as const))
  const { engines, stop, log, best, ended } = start({
    probe: ({ bind = '' }) =>
      isDead ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 9 },
    answer,
  })
  await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
  isDead = true
  await until(
    () => log.lines.some((line) => /WAN dsl is down/.test(line)) && log.lines.some((line) => /HAG \S+ is down/.test(line)),
  )
  t.equal(best.at(-1), 'dsl')
  for (let client = 1; client <= 5; client++) {
    engines[0]?.accept()
    await until(() => (engines[0]?.stats().relaying ?? 0) >= client)
  }
  await until(() => best.at(-1) === 'lte')
  t.equal(best.at(-1), 'lte')
  isDead = false
  await until(() => best.at(-1) === 'dsl')
  t.equal(best.at(-1), 'dsl', 'and back, once a HAG answers over it')
  stop.abort()
  for (let client = 1; client <= 5; client++) engines[0]?.leave(client)
  t.equal(await outcome(ended), undefined)
})

t.test('a WAN whose link is back gets its endpoint once it is found to work, and not before', async (t) => {
  let isLost = false
  let isLinkDown = false
  const { stop, log, withheld, watched, ended } = start(
    {
      probe: ({ bind = '' }) =>
        isLost && bind === '10.2.0.2'
          ? unreachable
          : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 9 },
    },
    { apply: async () => ({ steps: [], wans: isLinkDown ? wans.slice(0, 1) : wans, redirects: true, notes: [] }) },
  )
  await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
  isLinkDown = true
  isLost = true
  watched[0]?.onGone('lte', 'has no carrier')
  await until(() => log.lines.some((line) => /WAN lte is down/.test(line)))
  isLinkDown = false
  const before = withheld.length
  watched[0]?.onChange()
  await until(() => log.lines.some((line) => /WAN lte is (probing|down: no HAG)/.test(line)) && withheld.length > before)
  t.same(new Set(withheld.slice(before)), new Set(['lte']))
  isLost = false
  await until(() => withheld.at(-1) === '')
  t.equal(withheld.at(-1), '')
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('a firewall prohibits the way to the HAG (ICMPv6): that says nothing of our credentials', async (t) => {
  const failure = { code: 'EACCES', errno: 13, syscall: 'connect' }
  const { stop, log, ended } = start({ probe: () => ({ ok: false, stage: 'connect', failure }) })
  await until(() => log.lines.includes('info gateway runs'))
  t.match(
    log.lines.find((line) => line.includes('no HAG can be reached')),
    /^warn .*connections go direct, without bonding: HAG 203\.0\.113\.3:1080 over dsl: a firewall prohibits it; /,
  )
  stop.abort()
  t.equal(await outcome(ended), undefined)
})

t.test('no HAG answers any more: what costs the most is the last direct path, wherever it stands', async (t) => {
  const dear = [
    '{name: lte, interface: lte, role: overflow}',
    '{name: lte, interface: lte, role: backup}',
    '{name: lte, interface: lte, monthly_gb: 0.001}',
  ]
  const folder = t.testdir()
  for (const [index, lte] of dear.entries()) {
    const file = join(folder, `volume${index}.json`)
    const now = new Date()
    const month = `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, '0')}`
    writeFileSync(file, JSON.stringify({ [month]: { lte: 2e6 } }))
    let isDead = false
    const { engines, stop, log, ended } = start(
      {
        probe: ({ bind = '' }) =>
          isDead ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'mptcp', connectMs: 20 },
      },
      { wans: `  - ${lte}\n  - {name: dsl, interface: dsl}`, more: `volume_file: ${file}\n` },
    )
    await until(() => ['dsl', 'lte'].every((wan) => log.lines.some((line) => line.includes(`WAN ${wan} is up`))))
    isDead = true
    await until(
      () => log.lines.some((line) => /WAN dsl is down/.test(line)) && log.lines.some((line) => /HAG \S+ is down/.test(line)),
    )
    // The one that is not in use is asked seldom; its silence is the same.
    const [engine] = engines
    engine?.accept()
    await settle()
    t.match(engine?.opens.at(-1)?.spec, { remote: { address: '198.51.100.7' }, bind: '10.1.0.2' }, lte)
    engine?.leave(1)
    stop.abort()
    t.equal(await outcome(ended), undefined)
  }
})

t.test('one WAN on which the HAG answers is enough', async (t) => {
  const { stop, log, ended } = start(
    {
      probe: ({ bind = '' }) =>
        bind === '10.1.0.2' ? unreachable : { ok: true, local: { address: bind, port: 1 }, protocol: 'tcp', connectMs: 1 },
    },
    { more: 'on_hag_down: reject\n' },
  )
  const stripped = 'warn WAN lte carries no MPTCP, something on its path removes it: what begins there is not bonded'
  await until(() => log.lines.includes(stripped))
  t.ok(log.lines.includes('info HAG 203.0.113.3:1080 is up'))
  t.ok(log.lines.includes(stripped))
  stop.abort()
  t.equal(await outcome(ended), undefined)
})
