/**
 * A HAG's answers begin with more than the ten segments of RFC 6928, because slow start takes a round trip of every WAN for each doubling.
 * The kernel takes the window from the route, so there is a table with the routes of the main one and the window as their metric.
 *
 * Nobody's packets may go another way by it. Its rule stands directly in front of the main table's, so that every other rule (two uplinks,
 * VPN, VRF) decides before it; it is for packets that this machine itself sends (`iif lo`), not for those it forwards; and it is there only
 * while the table is read back as a true copy. Where that cannot be had the kernel's window stays. Other ways were worse: a mark on the
 * socket needs a rule and a table as well, and others' rules and filters see it; TCP_BPF_IW is for a BPF program on a cgroup only.
 */
import { existsSync } from 'node:fs'
import { pause } from '../base/pause.js'
import type { Log } from '../telemetry/log.js'
import { runCommand, systemKernel } from './kernel/command.js'
import type { CommandResult, Kernel } from './kernel/kernel.js'
import { owned } from './state.js'
import { type WatchEvents, watchKernel } from './watch.js'

/** Behind those of a gateway's WANs. */
const table = owned.base + owned.count
/** One before that of the kernel's rule for the main table. */
const priority = 32_765
/** RT_TABLE_MAIN. */
const mainTable = 254
/** A router's full table is no copy's business: it changes all day. */
const maxRoutes = 500
/** Changes come in bursts. */
const settleMs = 200
/** From one look to the next, so many times as long as it took: a flapping link, or a huge table that changes all day, must not eat the processor. */
const leastSpacingMs = 50
const spacing = 8
const hugeSpacing = 100
/** After a failure, which may be one of the moment: the wait doubles from here to the longest. */
const firstRetryMs = 1000
const longestRetryMs = 600_000

type Run = (argv: readonly string[], input?: string) => Promise<CommandResult>

export interface InitialWindowOptions {
  /** The HAG's. */
  port: number
  /** Segments. */
  segments: number
  log: Log
  /** Other HAGs share the table: the first one's window counts, and the last one takes all away. */
  sharing?: { isFirst: boolean; isLast(): boolean }
  /** Tests pass their own. */
  run?: Run
  lock?: Kernel['lock']
  watch?: (events: WatchEvents, signal: AbortSignal) => Promise<void>
}

/** Follows rules and routes until the signal, then takes all away. Never rejects: where it cannot be done, that is said. */
export async function keepInitialWindow(options: InitialWindowOptions, signal: AbortSignal): Promise<void> {
  const { log, run = runCommand, lock = systemKernel().lock, sharing = { isFirst: true, isLast: () => true } } = options
  const watch = options.watch ?? ((events, until) => watchKernel({ ...events, log }, until))
  const families = kernelFamilies().map((family) => new FamilyWindow(family, { ...options, run, lock, sharing }))
  const changed = () => {
    for (const family of families) family.changed()
  }
  const watching = watch({ onChange: changed, onGone: changed, onAddressGone: changed }, signal)
  // After a kill there may be an old one, for another port.
  if (sharing.isFirst) await removeInitialWindow(run)
  await Promise.all(families.map((family) => family.keep(signal)))
  await watching
  if (sharing.isLast()) await removeInitialWindow(run)
}

/** Takes away what a killed HAG has left, whatever its port was: the rule first. */
export async function removeInitialWindow(run: Run = runCommand): Promise<void> {
  await Promise.all(kernelFamilies().map((family) => remove(family, run)))
}

type FamilyFlag = '-4' | '-6'

const kernelFamilies = (): FamilyFlag[] => (existsSync('/proc/sys/net/ipv6') ? ['-4', '-6'] : ['-4'])

async function remove(family: FamilyFlag, run: Run): Promise<void> {
  // One rule a call, until there is none.
  for (let left = 16; left > 0 && (await run(['ip', family, 'rule', 'del', 'lookup', String(table)])).code === 0; left--);
  await run(['ip', family, 'route', 'flush', 'table', String(table)])
}

interface Seen {
  /** As `ip rule show` prints them. */
  rules: string[]
  main: string[]
  copy: string[]
  failure?: string
}

class FamilyWindow {
  #trouble = ''
  /** The rules and routes with which it did not work, or why they could not be seen: what we try wakes us again, so the next try has to wait. */
  #hopeless = ''
  #retryMs = firstRetryMs
  #retryAt = 0
  #wake = new AbortController()

  constructor(
    private readonly family: FamilyFlag,
    private readonly options: Required<Omit<InitialWindowOptions, 'watch'>>,
  ) {}

  /** Something of the kernel's rules or routes is another. */
  changed(): void {
    this.#wake.abort()
  }

  /** Until the signal. */
  async keep(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#wake = new AbortController()
      const startedAt = performance.now()
      const seen = await this.#look()
      const tookMs = performance.now() - startedAt
      this.#say(oneLine((await this.#act(seen, signal)) ?? ''))
      await pause(Math.max(leastSpacingMs, tookMs * (seen.main.length > maxRoutes ? hugeSpacing : spacing)), signal)
      const isIdle = this.#trouble === ''
      await pause(isIdle ? 2 ** 30 : Math.max(0, this.#retryAt - performance.now()), signal, this.#wake.signal)
    }
  }

  #say(trouble: string): void {
    if (trouble === this.#trouble) return
    const { log, segments } = this.options
    const name = this.family === '-6' ? 'IPv6' : 'IPv4'
    if (trouble !== '') log.info(`answers over ${name} begin with the kernel's initial window: ${trouble}`)
    else log.info(`answers over ${name} begin with ${segments} segments again`)
    this.#trouble = trouble
  }

  /** Does what is to be done about what was seen; why it cannot be done. */
  async #act(seen: Seen, signal: AbortSignal): Promise<string | undefined> {
    if (seen.failure !== undefined) {
      this.#retryLater(seen.failure)
      return seen.failure
    }
    const isTrue = this.#difference(seen) === undefined
    if (isTrue && this.#isPlaced(seen)) {
      this.#hopeless = ''
      return undefined
    }
    // Another HAG's rule may use the table too.
    const isWrong = isTrue ? seen.rules.some((rule) => this.#isOwn(rule)) : seen.copy.length > 0 || seen.rules.some(isOurs)
    const state = [...seen.rules.filter((rule) => !isOurs(rule)), ...seen.main].join('\n')
    let trouble: string | undefined
    try {
      if (isWrong) {
        // At once: until then packets go as they did before the change.
        await this.#alone(() => remove(this.family, this.options.run))
        await pause(settleMs, signal)
      }
      if (state === this.#hopeless && performance.now() < this.#retryAt) return this.#trouble
      if (!signal.aborted) trouble = await this.#alone(() => this.#make())
    } catch (error) {
      trouble = (error as Error).message
    }
    if (trouble === undefined) this.#hopeless = ''
    else this.#retryLater(state)
    return trouble
  }

  #retryLater(state: string): void {
    this.#retryMs = state === this.#hopeless ? Math.min(2 * this.#retryMs, longestRetryMs) : firstRetryMs
    this.#retryAt = performance.now() + this.#retryMs
    this.#hopeless = state
  }

  /** Not while another HAG, or `remove`, is about it. */
  async #alone<Value>(act: () => Promise<Value>): Promise<Value> {
    const release = await this.options.lock()
    try {
      return await act()
    } finally {
      release()
    }
  }

  async #make(): Promise<string | undefined> {
    const trouble = await this.#tryToMake()
    if (trouble !== undefined) await remove(this.family, this.options.run)
    return trouble
  }

  async #tryToMake(): Promise<string | undefined> {
    const { run, port, segments } = this.options
    const ip = (words: string, input?: string) => run(['ip', this.family, ...words.split(' ')], input)
    const { rules, main, copy } = await this.#look()
    const next = rules.find((rule) => Number.parseInt(rule, 10) > priority)
    if (!isMain(next)) return `where the rule for the main table should be, there is ${next ?? 'none'}`
    if (main.length > maxRoutes) return `the main table has ${main.length} routes`
    if (this.#difference({ main, copy }) !== undefined) {
      // Half a table leads astray: without a rule the main one counts.
      await remove(this.family, run)
      const added = await ip('-batch -', main.map((route) => `route append ${copyOf(route, segments)}\n`).join(''))
      if (added.code !== 0) return added.stderr
      const made = await this.#look()
      const difference = made.failure ?? this.#difference(made)
      if (difference !== undefined) return difference
    }
    // It goes behind all others of its priority.
    const rule = `pref ${priority} iif lo ipproto tcp sport ${port} lookup ${table}`
    await ip(`rule del ${rule}`)
    const { code, stderr } = await ip(`rule add ${rule}`)
    return code === 0 ? undefined : stderr
  }

  /** Nothing that decides stands between our rule and the main table's. */
  #isPlaced({ rules }: Seen): boolean {
    const own = rules.findIndex((rule) => this.#isOwn(rule))
    return own >= 0 && isMain(rules.slice(own).find((rule) => !isOurs(rule)))
  }

  #isOwn(rule: string): boolean {
    return isOurs(rule) && rule.includes(` sport ${this.options.port} `)
  }

  #difference({ main, copy }: Pick<Seen, 'main' | 'copy'>): string | undefined {
    const isCopied = (route: string, index: number) => {
      const [one = '', other = ''] = [route, copy[index]]
      const { segments, sharing } = this.options
      const window = windowOf(one) ?? (sharing.isFirst ? String(segments) : windowOf(other))
      return windowOf(other) === window && other.replace(windowWords, '') === one.replace(windowWords, '')
    }
    const other = main.find((route, index) => !isCopied(route, index)) ?? copy[main.length]
    return other === undefined ? undefined : `the main table has no true copy: ${other}`
  }

  async #look(): Promise<Seen> {
    // By one process. Numbers, because anybody may give names to tables.
    const argv = ['ip', this.family, '-N', '-o', '-batch', '-']
    const { code, stdout, stderr } = await this.options.run(argv, 'rule show\nroute show table all\n')
    const lines = stdout.split('\n').filter((line) => line.trim() !== '')
    const isRule = (line: string) => /^\d+:\s/.test(line)
    const routes = lines.filter((line) => !isRule(line)).map(parseRoute)
    return {
      rules: lines.filter(isRule).map((line) => line.trim()),
      main: routes.flatMap((route) => (route.table === undefined ? [route.text] : [])),
      copy: routes.flatMap((route) => (route.table === table ? [route.text] : [])),
      ...(code !== 0 && { failure: stderr || `ip: exit code ${code}` }),
    }
  }
}

const isOurs = (rule: string) => new RegExp(`\\blookup ${table}$`).test(rule)
const isMain = (rule: string | undefined) =>
  rule !== undefined && new RegExp(`^\\d+:\\s+from all lookup ${mainTable}$`).test(rule)

/** RTN_LOCAL and so on: `ip -N` shows their numbers, and does not take them. */
const types = ['', '', 'local', 'broadcast', 'anycast', 'multicast', 'blackhole', 'unreachable', 'prohibit', 'throw']

/** A line of `ip -N -o route show table all`, without what says nothing of where it leads. */
export function parseRoute(line: string): { text: string; table: number | undefined } {
  const found = / table (\d+)/.exec(line)?.[1]
  const text = line
    .replaceAll('\\', ' ')
    .replace(/^\d /, (type) => `${types[Number(type)] ?? ''} `)
    // States, which the kernel adds by itself; how long it lives, which the monitor tells; who made it; and the nexthop object, whose next
    // hop is there as well (a route by an object cannot be flushed: RTM_DELROUTE takes one of the two). A group of them stays, and then
    // there is no copy: from Linux 6.16 on next hops in a route are chosen by the source address too, those of a group are not.
    .replace(/ (linkdown|dead|offload|trap|rt_offload|rt_trap|offload_failed)\b/g, '')
    .replace(/ (expires|error|proto|table) \S+/g, '')
    .replace(/ nhid \d+(?!.*\bnexthop )/, '')
    .replace(/\s+/g, ' ')
    .trim()
  return { text, table: found === undefined ? undefined : Number(found) }
}

const windowWords = / initcwnd (\d+)/
const windowOf = (route: string) => windowWords.exec(route)?.[1]

/** A route as words for `ip route append`: next hops last; `rto_min`, which `ip` shows as locked, without that word. */
export function copyOf(route: string, segments: number): string {
  const [, head = '', hops = ''] = /^(.*?)( nexthop .*)?$/.exec(route) ?? []
  // A window that somebody gave it stays.
  const window = windowOf(head) === undefined ? ` initcwnd ${segments}` : ''
  return `${head.replace(' rto_min lock ', ' rto_min ')}${window} table ${table} proto ${owned.protocol}${hops}`
}

const oneLine = (text: string) => text.trim().replace(/\s*\n\s*/g, '; ')
