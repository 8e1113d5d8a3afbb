/** A program in a lab: starts it, reads its output, and ends it by its process id. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { BondsocksError } from '../base/errors.js'

/** Enough of its last output to tell why it ended. */
const keptCharacters = 1 << 20

export interface LogLine {
  /** Milliseconds since 1970. */
  at: number
  level: string
  message: string
}

export class LabProgram {
  #text = ''
  /** Resolves when it has ended and all its output has been read. */
  readonly exited: Promise<unknown>
  readonly #child: ChildProcess

  constructor(
    readonly title: string,
    [file = '', ...args]: readonly string[],
  ) {
    this.#child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.exited = once(this.#child, 'close').catch(() => {})
    // A program that cannot be started has no process id; `waitFor` tells the message.
    this.#child.on('error', (error) => {
      this.#text += error.message
    })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (data: Buffer) => {
        this.#text = `${this.#text}${data}`.slice(-keptCharacters)
      })
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Its output on both streams. */
  get output(): string {
    return this.#text
  }

  get #runs(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Resolves when it has printed `text`; rejects with its last line if it ends before. */
  async waitFor(text: string, patienceMs = 15_000): Promise<void> {
    const deadline = performance.now() + patienceMs
    while (!this.#text.includes(text)) {
      if (!this.#runs || performance.now() > deadline) {
        const last = this.#text.trim().split('\n').at(-1) || 'it said nothing'
        throw new BondsocksError('LAB_PROGRAM', `${this.title} ${this.#runs ? 'does not get ready' : 'ended'}: ${last}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** The lines of its log that match, since a moment (see `now`). */
  logged(pattern: RegExp, since = 0): LogLine[] {
    return this.#text.split('\n').flatMap((line) => {
      if (!line.startsWith('{') || !line.endsWith('}') || !pattern.test(line)) return []
      const { time, level, message } = JSON.parse(line)
      const at = Date.parse(time)
      return at >= Math.floor(since) ? [{ at, level, message }] : []
    })
  }

  /** Waits for the first such line. Undefined if none comes within `patienceMs`. */
  async awaitLog(pattern: RegExp, since = 0, patienceMs = 10_000): Promise<LogLine | undefined> {
    const deadline = performance.now() + patienceMs
    for (;;) {
      const [line] = this.logged(pattern, since)
      if (line !== undefined || performance.now() > deadline) return line
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#runs) this.#child.kill(signal)
  }

  /** The second SIGTERM tells our programs not to wait for connections. */
  async end(patienceMs = 3000): Promise<void> {
    for (const signal of ['SIGTERM', 'SIGTERM', 'SIGKILL'] as const) {
      if (!this.#runs) return
      const ended = once(this.#child, 'exit')
      this.#child.kill(signal)
      let timer: NodeJS.Timeout | undefined
      const patience = new Promise((resolve) => {
        timer = setTimeout(resolve, patienceMs)
      })
      await Promise.race([ended, patience])
      clearTimeout(timer)
    }
  }
}

/** Ticks of all processors so far: `all`, and `stolen`, those that a virtual machine's host gave to others (`steal`, proc(5)). */
export function processorTicks(): { all: number; stolen: number } {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n')
  // The fields behind these are guests' ticks, which `user` and `nice` contain.
  const ticks = line.split(/\s+/).slice(1, 9).map(Number)
  return { all: ticks.reduce((sum, value) => sum + value, 0), stolen: ticks[7] ?? 0 }
}
