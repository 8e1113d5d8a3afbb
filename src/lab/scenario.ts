/** Runs a scenario in a lab of its own. Leaves nothing behind, however it ends. */
import { setTimeout as wait } from 'node:timers/promises'
import { BondsocksError } from '../base/errors.js'
import { mptcpKernel } from '../base/kernel-version.js'
import { type Download, download, filePort, type Sample } from './download.js'
import { type Configs, type Lab, type LabOptions, labUp, type Topology } from './lab.js'
import { nodeArgv } from './node.js'
import { LabProgram, type LogLine, processorTicks } from './program.js'
import { trafficPort } from './traffic.js'

export interface Scenario {
  /** One line, for `lab --help`. */
  summary: string
  topology: Topology
  /** Drives the stage and prints. Throws a BondsocksError if what it wants to show does not hold. */
  run(stage: Stage): Promise<void>
}

export interface StageOptions {
  /** The command line of the program under test. */
  bondsocks: readonly string[]
  print(text: string): void
  /**
   * A figure is a miss above so many times what was asked: 3 by hand, more if other jobs run on the machine. In a slow lab figures may take
   * longer.
   */
  wildly: number
}

/** Lines of a program's log to print. */
const loggedLines = 40
const startTimeoutMs = 15_000
const endTimeoutMs = 3000

/** A lab, and what every scenario does in it. */
export class Stage {
  readonly #programs: LabProgram[] = []
  /** What did not hold until now. */
  readonly misses: string[] = []
  #isToExplain = false
  readonly #live = process.stdout.isTTY === true
  readonly #before = processorTicks()

  readonly #options: StageOptions

  constructor(
    readonly lab: Lab,
    readonly signal: AbortSignal,
    options: Partial<StageOptions> = {},
  ) {
    this.#options = { bondsocks: nodeArgv('main'), print: (text) => process.stdout.write(text), wildly: 3, ...options }
  }

  say(line = ''): void {
    this.#options.print(`${this.#live ? '\r\x1b[K' : ''}${line}\n`)
  }

  /** Prints a line that the next one replaces on a terminal. */
  tell(line: string): void {
    if (this.#live) this.#options.print(`\r\x1b[K${line}`)
    else this.say(line)
  }

  sleep(seconds: number): Promise<void> {
    return wait(seconds * 1000, undefined, { signal: this.signal })
  }

  async start(title: string, host: string, argv: readonly string[], ready: string): Promise<LabProgram> {
    this.signal.throwIfAborted()
    const program = new LabProgram(title, this.lab.argv(host, argv))
    this.#programs.push(program)
    await program.waitFor(ready, startTimeoutMs * this.lab.slow)
    return program
  }

  startServer(): Promise<LabProgram> {
    return this.start('the file server', 'server', [...nodeArgv('lab/programs/files'), String(filePort)], 'serving')
  }

  startHag(which: 'hag' | 'hag2' = 'hag'): Promise<LabProgram> {
    const argv = [...this.#options.bondsocks, 'hag', '-c', this.lab.configs[which]]
    return this.start(`bondsocks hag (${which})`, which, argv, 'HAG listens')
  }

  startGateway(config: Exclude<keyof Configs, 'hag' | 'hag2'> = 'gateway'): Promise<LabProgram> {
    const argv = [...this.#options.bondsocks, 'run', '-c', this.lab.configs[config]]
    return this.start('bondsocks run', 'cpe', argv, 'gateway runs')
  }

  /** Starts the traffic server, the HAG and the gateway, and waits until the gateway says that every WAN is up. */
  async startAll(config?: Parameters<Stage['startGateway']>[0]): Promise<{ gateway: LabProgram; hag: LabProgram }> {
    await this.start(
      'the traffic server',
      'server',
      [...nodeArgv('lab/programs/traffic'), 'serve', String(trafficPort)],
      'serving',
    )
    const hag = await this.startHag()
    const gateway = await this.startGateway(config)
    await this.requireUp(gateway, ...this.lab.wans.map(({ name }) => name))
    return { gateway, hag }
  }

  /** Waits until the gateway says that these WANs are up. Throws if it does not. */
  async requireUp(gateway: LabProgram, ...wans: string[]): Promise<void> {
    for (const wan of wans) await this.requireLog(gateway, new RegExp(`WAN ${wan} is up`))
  }

  /** Waits for the first line of its log that matches, since that moment (see `now`). Throws if none comes. */
  async requireLog(gateway: LabProgram, pattern: RegExp, since = 0): Promise<LogLine> {
    const line = await gateway.awaitLog(pattern, since, 10_000 * this.lab.slow)
    if (line !== undefined) return line
    throw new BondsocksError('LAB_SILENT', `the gateway never said ${pattern.source}`)
  }

  /** Prints each second what each WAN carries. */
  download(megabytes: number, onSample: (sample: Sample) => void = () => {}): Promise<Download> {
    return download(this.lab, Math.ceil((megabytes * 1e6) / this.lab.slow), {
      signal: this.signal,
      onSample: (sample) => {
        const wans = this.lab.wans.map(({ name, rateDown }) => {
          const rate = sample.wans[name] ?? 0
          return `${name} ${rate.toFixed(1).padStart(5)} ${bar(rate / rateDown)}`
        })
        this.tell(`  ${sample.at.toFixed(0).padStart(3)} s   ${wans.join('   ')}   Mbit/s`)
        onSample(sample)
      },
    })
  }

  /** The first row is the heading. */
  table(rows: readonly (readonly string[])[]): void {
    const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
    this.say()
    for (const row of rows) {
      const cells = row.map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      this.say(`  ${cells.join('   ')}`)
    }
    const { all, stolen } = processorTicks()
    const share = (stolen - this.#before.stolen) / (all - this.#before.all)
    if (share >= 0.02) {
      this.say(
        `  this machine's host gave ${formatFigure(100 * share, '%')} of its processor time to others meanwhile: pauses are longer for it`,
      )
    }
  }

  /**
   * Prints what was measured, what was asked, and what redsocks reaches. It is a miss if something never happened, or took several times
   * what was asked: smaller differences may be due to a busy machine.
   */
  figures(figures: readonly Figure[]): void {
    this.table([
      ['', 'measured', 'asked', 'redsocks'],
      ...figures.map(({ what, measured, unit, asked, redsocks }) => [
        what,
        measured === undefined ? 'never' : formatFigure(measured, unit),
        asked === undefined ? '-' : formatFigure(asked, unit),
        redsocks ?? '-',
      ]),
    ])
    for (const { what, measured, asked, unit } of figures) {
      if (asked === undefined || (measured !== undefined && measured <= asked)) continue
      this.#isToExplain = true
      if (measured !== undefined && measured <= this.#options.wildly * this.lab.slow * asked) continue
      const found = measured === undefined ? 'never happened' : formatFigure(measured, unit)
      this.miss(`${what}: ${found}, asked is at most ${formatFigure(asked, unit)}`)
    }
  }

  /** Prints what does not hold, and goes on; `judge` throws in the end. */
  miss(text: string): void {
    this.#isToExplain = true
    this.say(`  MISSED: ${text}`)
    this.misses.push(text)
  }

  /** Throws if there were misses. */
  judge(): void {
    if (this.misses.length > 0) throw new BondsocksError('LAB_MISSED', this.misses.join('; '))
  }

  /** Ends the programs in reverse order: the gateway before its HAG. If something was missed, prints their logs. */
  async close(): Promise<void> {
    for (const program of this.#programs.reverse()) await program.end(endTimeoutMs * this.lab.slow)
    if (!this.#isToExplain) return
    for (const program of this.#programs) {
      const lines = program.logged(/./).map(({ at, message }) => `    ${new Date(at).toISOString().slice(11, -1)} ${message}`)
      if (lines.length > 0) this.say([`  ${program.title}:`, ...lines.slice(-loggedLines)].join('\n'))
    }
  }
}

export interface Figure {
  what: string
  /** Undefined: it never happened. */
  measured: number | undefined
  /** `x`: times the usual; empty: a count. */
  unit: 'ms' | 'x' | '%' | ''
  /** The upper bound that was asked. */
  asked?: number
  redsocks?: string
}

function formatFigure(value: number, unit: Figure['unit']): string {
  return `${unit === 'x' ? value.toFixed(2) : Math.round(value)} ${unit}`.trimEnd()
}

function bar(share: number): string {
  const width = 10
  return '#'.repeat(Math.min(width, Math.max(0, Math.round(share * width)))).padEnd(width, '.')
}

export async function runScenario({ topology, run }: Scenario, options: Pick<LabOptions, 'name' | 'slow'>): Promise<void> {
  // Imported here, so that the lab's other commands work without the addon.
  const { native } = await import('../engine/load.js')
  const why = native.mptcpUnavailable()
  if (why !== undefined) {
    const mend = why === 'ENOPROTOOPT' ? 'set the sysctl net.mptcp.enabled to 1' : `use ${mptcpKernel}`
    throw new BondsocksError('NO_MPTCP', `this kernel has no MPTCP (${why}): ${mend}`)
  }
  const interruption = new AbortController()
  const interrupt = () => interruption.abort()
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, interrupt)
  try {
    const lab = await labUp({ topology, ...options })
    try {
      const stage = new Stage(lab, interruption.signal)
      stage.say(`lab ${lab.name}: ${describe(lab)}`)
      const interrupted = new Promise<never>((_, reject) => {
        interruption.signal.addEventListener('abort', () =>
          reject(new BondsocksError('INTERRUPTED', 'interrupted; all is removed')),
        )
        if (interruption.signal.aborted) interrupt()
      })
      try {
        const running = run(stage).then(() => stage.judge())
        // After an interruption nobody awaits it.
        running.catch(() => {})
        await Promise.race([running, interrupted])
      } finally {
        await stage.close()
      }
    } finally {
      await lab.down()
    }
  } finally {
    for (const signal of signals) process.off(signal, interrupt)
  }
}

function describe({ topology, wans, links }: Lab): string {
  const lines = wans.map(({ name, rateDown, rateUp, delayMs }) => `${name} ${rateDown}/${rateUp} Mbit/s ${delayMs} ms`)
  return `${topology}, ${lines.join(', ')} (${links})`
}
