import t, { type Test } from 'tap'
import { copyOf, keepInitialWindow, parseRoute } from '../../src/network/initial-window.js'
import type { CommandResult } from '../../src/network/kernel/kernel.js'
import { settle } from '../support/fake-engine.js'
import { memoryLog } from '../support/memory-log.js'

t.test('lines of `ip route show` as what `ip route append` takes', (t) => {
  for (const [line, words] of [
    [
      'default via 192.0.2.1 dev eth0 proto 16 metric 100 ',
      'default via 192.0.2.1 dev eth0 metric 100 initcwnd 48 table 5808 proto 158',
    ],
    [
      '192.0.2.0/24 dev eth0 proto 2 scope 253 src 192.0.2.2 linkdown ',
      '192.0.2.0/24 dev eth0 scope 253 src 192.0.2.2 initcwnd 48 table 5808 proto 158',
    ],
    [
      'default metric 9 \\\tnexthop via 192.0.2.1 dev a weight 2 \\\tnexthop via 192.0.2.3 dev b weight 1 ',
      'default metric 9 initcwnd 48 table 5808 proto 158 nexthop via 192.0.2.1 dev a weight 2 nexthop via 192.0.2.3 dev b weight 1',
    ],
    ['198.51.100.0/24 nhid 7 via 192.0.2.1 dev a ', '198.51.100.0/24 via 192.0.2.1 dev a initcwnd 48 table 5808 proto 158'],
    [
      '10.0.0.0/8 via 192.0.2.1 dev a initcwnd 20 rto_min lock 40ms ',
      '10.0.0.0/8 via 192.0.2.1 dev a initcwnd 20 rto_min 40ms table 5808 proto 158',
    ],
    // Of a group there is no copy: `ip` does not take both.
    [
      '198.51.100.0/24 nhid 3 \\\tnexthop via 192.0.2.1 dev a weight 1 \\\tnexthop via 192.0.2.3 dev b weight 1 ',
      '198.51.100.0/24 nhid 3 initcwnd 48 table 5808 proto 158 nexthop via 192.0.2.1 dev a weight 1 nexthop via 192.0.2.3 dev b weight 1',
    ],
    ['7 10.9.0.0/16 ', 'unreachable 10.9.0.0/16 initcwnd 48 table 5808 proto 158'],
    [
      'default via fe80::1 dev a proto 9 metric 1024 expires 1790sec hoplimit 64 pref medium',
      'default via fe80::1 dev a metric 1024 hoplimit 64 pref medium initcwnd 48 table 5808 proto 158',
    ],
  ] as const) {
    const { text, table } = parseRoute(line)
    t.equal(copyOf(text, 48), words)
    t.equal(table, undefined)
  }
  t.same(parseRoute('2 127.0.0.1 dev lo table 255 proto 2 scope 254 src 127.0.0.1 ').table, 255)
  t.end()
})

t.test('where it is not allowed: said once a family, and not tried again and again', async (t) => {
  const log = memoryLog()
  const asked: string[] = []
  let changed: () => void = () => undefined
  const stop = new AbortController()
  const kept = keepInitialWindow(
    {
      port: 1080,
      segments: 48,
      log,
      lock: async () => () => undefined,
      watch: async ({ onChange }) => {
        changed = onChange
      },
      run: async (argv, input) => {
        asked.push(argv.slice(2).join(' '))
        if (input?.startsWith('rule show')) {
          const stdout = '0:\tfrom all lookup 255\n32766:\tfrom all lookup 254\ndefault via 192.0.2.1 dev eth0 \n'
          return { code: 0, stdout, stderr: '' }
        }
        return { code: 2, stdout: '', stderr: 'RTNETLINK answers: Operation not permitted\nCommand failed -:1\n' }
      },
    },
    stop.signal,
  )
  while (!log.lines.some((line) => line.includes('IPv4'))) await settle()
  changed()
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.same(
    log.lines.filter((line) => line.includes('IPv4')),
    [
      "info answers over IPv4 begin with the kernel's initial window: RTNETLINK answers: Operation not permitted; Command failed -:1",
    ],
  )
  const tries = asked.filter((words) => words === '-batch -').length
  t.ok(tries <= 2, `one try a family: ${tries}`)
  t.notOk(asked.some((words) => words.startsWith('rule add')))
  stop.abort()
  await kept
})

/** A machine whose `ip` does as it is told, unless `looks` and `copies` have something else in store, and what keeps its window. */
function machine(
  t: Test,
  main: string[],
  looks: (argv: readonly string[]) => CommandResult | undefined,
  copies: () => number | undefined,
) {
  const here = { main, copy: [] as string[], own: [] as string[], changed: () => {}, copied: () => {}, end: async () => {} }
  const stop = new AbortController()
  const kept = keepInitialWindow(
    {
      port: 1080,
      segments: 48,
      log: memoryLog(),
      lock: async () => () => undefined,
      watch: async ({ onChange }) => {
        here.changed = onChange
      },
      run: async (argv, input) => {
        const words = argv.join(' ')
        let code = 0
        if (input?.startsWith('rule show')) {
          const rules = ['0:\tfrom all lookup 255', ...here.own, '32766:\tfrom all lookup 254']
          const stdout = [...rules, ...here.main, ...here.copy.map((route) => `${route} table 5808`), ''].join('\n')
          return looks(argv) ?? { code, stdout, stderr: '' }
        }
        if (argv[1] === '-6') code = 2
        else if (input !== undefined) {
          const fate = copies()
          if (fate === undefined) here.copy = here.main.map((route) => `${route} initcwnd 48`)
          else code = fate
          here.copied()
        } else if (words.includes('route flush')) here.copy = []
        else if (words.includes('rule add')) {
          here.own = ['32765:\tfrom all iif lo ipproto tcp sport 1080 lookup 5808']
          t.equal(here.copy.length, here.main.length, 'no rule leads to half a table')
        } else if (words.includes('rule del')) {
          code = here.own.length > 0 ? 0 : 2
          here.own = []
        }
        return { code, stdout: '', stderr: code === 0 ? '' : 'Error: Nexthop has invalid gateway.' }
      },
    },
    stop.signal,
  )
  here.end = async () => {
    stop.abort()
    await kept
  }
  return here
}

t.test('a look that fails once, at a change, leaves no untrue copy for long', async (t) => {
  let fails = 0
  const failure = { code: 124, stdout: '', stderr: 'no end after 10 s' }
  const looks = ([, family]: readonly string[]) => (family === '-4' && fails-- > 0 ? failure : undefined)
  const here = machine(t, ['default via 192.0.2.1 dev eth0'], looks, () => undefined)
  const isTrue = () => here.own.length === 1 && here.copy.length === 1 && here.copy[0]?.startsWith(here.main[0] ?? '') === true
  t.ok(await until(isTrue))
  fails = 1
  here.main = ['default via 192.0.2.9 dev eth0']
  here.changed()
  t.ok(await until(isTrue), 'it looks again soon')
  await here.end()
})

t.test('a link that flaps between the look and the copy: nothing counts as copied before it is', async (t) => {
  const near = '192.0.2.0/24 dev eth0'
  const all = [near, 'default via 192.0.2.1 dev eth0']
  /** What becomes of each copying in turn; the next ones succeed. */
  const fates: (() => number)[] = [
    // Down: `ip -batch` stops at a device that has no network any more. And up again, a moment later.
    () => {
      here.main = []
      here.copy = [`${near} initcwnd 48`]
      setTimeout(() => {
        here.main = [...all]
        here.changed()
      }, 100)
      return 1
    },
    // Down and up while it copies: the table has lost all that was in it, or some of it, with no error at all.
    () => {
      here.copy = []
      return 0
    },
    () => {
      here.copy = [`${near} initcwnd 48`]
      return 0
    },
  ]
  const here = machine(
    t,
    [...all],
    () => undefined,
    () => fates.shift()?.(),
  )
  here.copied = () => here.changed()
  const isWhole = () => fates.length === 0 && here.own.length === 1 && here.copy.length === all.length
  t.ok(await until(isWhole), 'in the end the copy is whole, and is used')
  await here.end()
})

/** Within 5 s. */
async function until(holds: () => boolean): Promise<boolean> {
  for (let left = 500; left > 0 && !holds(); left--) await new Promise((resolve) => setTimeout(resolve, 10))
  return holds()
}
