import t from 'tap'
import { Reconciler } from '../../src/network/reconcile.js'
import type { NetworkPlan, WanAddresses } from '../../src/network/state.js'
import { watchKernel } from '../../src/network/watch.js'
import { watchFirewall } from '../../src/network/watch-firewall.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'
import { virtualTime } from '../support/virtual-time.js'

const time = virtualTime(t)
/** Within a pass. */
const sleep = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds))

const dsl = { name: 'dsl', interface: 'dsl', address4: '10.1.0.2' }
const lte = { name: 'lte', interface: 'lte', address4: '10.2.0.2' }
const step = { kind: 'rule-added' as const, text: 'ip rule add', action: { argv: ['ip'] }, undo: [] }
const plan = (wans: WanAddresses[], notes: string[] = [], steps: NetworkPlan['steps'] = []): NetworkPlan => ({
  wans,
  redirects: true,
  notes,
  steps,
})

function running(apply: (quick: boolean) => Promise<NetworkPlan>, isCalm = () => false) {
  const log = memoryLog()
  const stop = new AbortController()
  const seen: string[][] = []
  const onWans = (wans: readonly WanAddresses[]) => seen.push(wans.map(({ name }) => name))
  const reconciler = new Reconciler({ apply, isCalm, onWans, emit: toLog(log), initial: plan([dsl, lte]) })
  const ended = reconciler.run(stop.signal)
  const end = async () => {
    stop.abort()
    await time.advance(1000)
    await ended
  }
  return { log, seen, reconciler, end }
}

t.test('a burst of changes is one pass, and the WANs are told once they are others', async (t) => {
  let passes = 0
  const { log, seen, reconciler, end } = running(async () => {
    passes++
    const down = passes < 3 ? ['dsl'] : ['dsl', 'lte']
    const notes = down.map((name) => `WAN ${name} is down: no carrier`)
    return plan([lte], notes, passes === 1 ? [step] : [])
  })
  /** So many passes, and no more of them a moment later. */
  const passed = async (count: number) => {
    await time.until(() => passes >= count)
    await time.advance(2000)
    t.equal(passes, count)
  }
  for (let i = 0; i < 50; i++) reconciler.schedule()
  await passed(1)
  t.same(seen, [['lte']])
  reconciler.schedule()
  await passed(2)
  t.same(seen, [['lte']], 'nothing new')
  reconciler.forceReport(['WAN lte is down: no carrier'])
  await passed(3)
  t.same(seen, [['lte'], ['lte']], 'but told again to who has forgotten')
  await end()
  t.same(log.lines, ['info the network changed and was set up anew', 'warn WAN dsl is down: no carrier'])
})

t.test('however often a link flaps, passes take an eighth of the time', async (t) => {
  const passes: { at: number; ms: number }[] = []
  const { reconciler, end } = running(async () => {
    const at = performance.now()
    await sleep(60)
    passes.push({ at, ms: performance.now() - at })
    return plan([dsl, lte])
  })
  for (let changes = 0; changes < 400; changes++) {
    reconciler.schedule()
    await time.advance(5)
  }
  await end()
  t.ok(passes.length >= 4)
  for (const [index, { at, ms }] of passes.slice(0, -1).entries()) {
    const pauseMs = (passes[index + 1]?.at ?? 0) - at
    t.ok(pauseMs >= 8 * ms && pauseMs < 8 * ms + 30, `a pass of ${ms} ms, the next ${pauseMs} ms after it`)
  }
})

t.test('what changes just after the regular look does not wait', async (t) => {
  let beganAt = Number.NaN
  let looks = 0
  const { reconciler, end } = running(async () => {
    beganAt = performance.now()
    await sleep(100)
    looks++
    return plan([dsl, lte])
  })
  t.ok(await time.until(() => looks === 1, 15_000))
  const changedAt = performance.now()
  reconciler.schedule()
  await time.until(() => looks === 2)
  await end()
  t.ok(beganAt - changedAt < 50, `a pass began ${Math.round(beganAt - changedAt)} ms after the change`)
})

t.test(
  'at rest the looks become rarer, and after a change that is told, or while clients are active, one follows within 10 s',
  async (t) => {
    const looks: number[] = []
    let isCalm = true
    let isBlocked = false
    const startedAt = performance.now()
    const { reconciler, end } = running(
      async (quick) => {
        if (!quick) looks.push(Math.round((performance.now() - startedAt) / 1000))
        return { ...plan([dsl, lte]), isBlocked }
      },
      () => isCalm,
    )
    await time.advance(1000_000)
    t.same(looks, [10, 30, 70, 150, 310, 630, 950])
    reconciler.lookSoon()
    await time.advance(9000)
    t.equal(looks.length, 7, 'not at once')
    await time.advance(31_000)
    t.same(looks.slice(7), [1010, 1030])
    isCalm = false
    reconciler.lookSoon()
    await time.advance(35_000)
    t.same(looks.slice(9), [1050, 1060, 1070])
    isCalm = isBlocked = true
    await time.advance(35_000)
    t.same(looks.slice(12), [1080, 1090, 1100], 'also while a firewall is in the way')
    await end()
  },
)

t.test('a failed pass is said once and tried again', async (t) => {
  let passes = 0
  const { log, reconciler, end } = running(async () => {
    if (++passes <= 2) throw new Error('no such device')
    return plan([dsl, lte])
  })
  reconciler.schedule()
  await time.until(() => log.lines.length === 2)
  await time.advance(2000)
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
  reconciler.schedule()
  t.ok(await time.until(() => under === 1))
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
      emit: toLog(log),
      onChange: () => changes++,
      onGone: () => {},
      onAddressGone: () => {},
      stream: async (argv, onOutput, signal) => {
        t.same(argv, ['ip', '-o', 'monitor', 'link', 'address', 'route', 'nexthop', 'rule'])
        if (++starts === 1) return 'exit code 2'
        onOutput('700:\tfrom 10.1.0.2 lookup 5800\n')
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
        return 'ended'
      },
    },
    stop.signal,
  )
  await time.until(() => changes === 2)
  stop.abort()
  await watching
  t.equal(starts, 2)
  t.equal(changes, 2)
  t.same(log.lines, ['warn the watch on the network ended and is started again: exit code 2'])
})

t.test('the signal that ends us may end the monitor a moment before: nothing is said', async (t) => {
  const log = memoryLog()
  const stop = new AbortController()
  const stream = async () => {
    setTimeout(() => stop.abort(), 10)
    return 'killed with SIGTERM'
  }
  const watching = watchKernel(
    { emit: toLog(log), onChange: () => {}, onGone: () => {}, onAddressGone: () => {}, stream },
    stop.signal,
  )
  await time.until(() => stop.signal.aborted)
  await watching
  t.same(log.lines, [])
})

t.test('a monitor that cannot be started is said once', async (t) => {
  const log = memoryLog()
  const stop = new AbortController()
  let starts = 0
  const stream = async () => {
    if (++starts === 3) stop.abort()
    return 'ip ENOENT'
  }
  const watching = watchKernel(
    { emit: toLog(log), onChange: () => {}, onGone: () => {}, onAddressGone: () => {}, stream },
    stop.signal,
  )
  await time.until(() => stop.signal.aborted)
  await watching
  t.same(log.lines, ['warn the watch on the network ended and is started again: ip ENOENT'])
})

t.test('what has gone is told at once, whatever the pieces in which the monitor prints it', async (t) => {
  const up = '<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default \\    link/ether 5a:f4:00:17:50:6a'
  const link = (name: string, flags: string) =>
    `3: ${name}: <${flags}> mtu 1500 qdisc noqueue state DOWN group default \\    link/none`
  const told: [line: string, event: string][] = [
    [`3: dsl@if2: ${up}`, ''],
    [link('dsl@if2', 'NO-CARRIER,BROADCAST,MULTICAST,UP'), 'dsl has no carrier'],
    [link('dsl@if2', 'NO-CARRIER,BROADCAST,MULTICAST,UP'), ''],
    [`3: dsl@if2: ${up}`, ''],
    [link('dsl@if2', 'BROADCAST,MULTICAST,UP'), 'dsl has no carrier'],
    [`3: dsl@if2: ${up}`, ''],
    [link('dsl', 'BROADCAST,MULTICAST'), 'dsl is down'],
    [link('ppp0', 'POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP,NEWFLAG'), ''],
    [`Deleted ${link('ppp0', 'POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP')}`, 'ppp0 was deleted'],
    [`Deleted ${link('eth0.7@eth0', 'BROADCAST')}`, 'eth0.7 was deleted'],
    ['Deleted 2: dsl    inet 10.1.0.2/24 scope global dsl\\       valid_lft forever preferred_lft forever', '10.1.0.2 has gone'],
    ['Deleted 2: ppp0    inet 10.64.0.2 peer 10.64.0.1/32 scope global ppp0\\       valid_lft forever', '10.64.0.2 has gone'],
    ['Deleted 2: dsl    inet6 2001:db8::2/64 scope global nodad \\       valid_lft forever', '2001:db8::2 has gone'],
    ['2: dsl    inet 10.1.0.3/24 scope global dsl\\       valid_lft forever preferred_lft forever', ''],
    ['Deleted default via 10.1.0.1 dev dsl ', ''],
    ['Deleted 700:\tfrom 10.1.0.2 lookup 5800', ''],
    ['Deleted nothing that we know: <of>', ''],
    ['4: ', ''],
    ['', ''],
  ]
  const text = told.map(([line]) => `${line}\n`).join('')
  const expected = told.flatMap(([, event]) => (event === '' ? [] : [event]))
  for (const size of [1, 7, 100, text.length]) {
    const stop = new AbortController()
    const seen: string[] = []
    let changes = 0
    const stream = async (_argv: readonly string[], onOutput: (text: string) => void) => {
      for (let at = 0; at < text.length; at += size) onOutput(text.slice(at, at + size))
      stop.abort()
      return ''
    }
    const onGone = (device: string, what: string) => seen.push(`${device} ${what}`)
    const onAddressGone = (address: string) => seen.push(`${address} has gone`)
    await watchKernel({ emit: toLog(memoryLog()), onChange: () => changes++, onGone, onAddressGone, stream }, stop.signal)
    t.same(seen, expected, `in pieces of ${size}`)
    t.equal(changes, Math.ceil(text.length / size))
  }
})

t.test('rules of ours that somebody deletes are told at once, and looked for', async (t) => {
  const told: [lines: string[], gone: number, changed: number][] = [
    [['delete rule ip nat BONDSOCKS handle 4\ndelete rule ip nat PREROUTING handle 3\n'], 1, 0],
    [['delete rule ip nat PREROUTING handle 3\ndelete rule ip6 nat BOND', 'SOCKS handle 9\n'], 1, 1],
    [['delete rule inet fw4 input handle 12\n', '# new generation 7 by process 4 (nft)\n'], 0, 1],
    [['add rule ip nat BONDSOCKS counter\n', 'insert rule ip nat PREROUTING iifname "br0" jump BONDSOCKS\n'], 0, 0],
    [['insert rule ip filter INPUT iifname "br0" drop\n'], 0, 1],
  ]
  for (const [pieces, ...expected] of told) {
    let gone = 0
    let changed = 0
    let starts = 0
    const stream = async (argv: readonly string[], onOutput: (text: string) => void) => {
      t.same(argv, ['nft', 'monitor', 'rules'])
      starts++
      for (const piece of pieces) onOutput(piece)
      return 'nft ENOENT'
    }
    await watchFirewall({ onRulesGone: () => gone++, onRulesChanged: () => changed++, stream }, new AbortController().signal)
    t.same([gone, changed], expected, pieces.join())
    t.equal(starts, 1, 'where nft ends at once it is not asked again')
  }
  const looks: boolean[] = []
  const { reconciler, end } = running(async (quick) => {
    looks.push(quick)
    await sleep(50)
    return plan([dsl, lte])
  })
  reconciler.schedule()
  await time.advance(1000)
  reconciler.lookNow()
  await time.advance(20)
  t.same(looks, [true, false], 'a pass after a change need not look at everything, this one does')
  reconciler.lookNow()
  await time.advance(1000)
  t.same(looks, [true, false, false], 'and so does the one that was asked for in the middle of it')
  await end()
})
