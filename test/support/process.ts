/** Programs under test: starts them, reads their output, and ends them by their process id. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Scope } from './namespaces.js'

const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

/** Without tap's variables, which would make every Node process below report to tap. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([key]) => key !== 'NODE_OPTIONS' && !/^_?TAP/.test(key))
  return { ...Object.fromEntries(kept), NO_COLOR: '1' }
}

export class Program {
  readonly pid: number
  readonly exited: Promise<Exit>
  private text = ''

  constructor(private readonly child: ChildProcess) {
    if (child.pid === undefined) throw new Error(`cannot start ${child.spawnfile}`)
    this.pid = child.pid
    // Not 'exit', because its last output may come after that.
    this.exited = once(child, 'close').then(([code, signal]) => ({ code, signal }))
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data: Buffer) => (this.text += data.toString()))
  }

  /** Its output so far, on both streams. */
  get output(): string {
    return this.text
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  /** Resolves when the output matches; rejects with the output if the program ends first or `timeoutMs` pass. */
  async waitFor(pattern: RegExp, timeoutMs = 15_000): Promise<RegExpMatchArray> {
    const deadline = Date.now() + timeoutMs
    for (;;) {
      const match = this.text.match(pattern)
      if (match) return match
      if (!this.running || Date.now() > deadline) {
        throw new Error(`${this.running ? 'running, but' : 'ended, and'} never printed ${pattern}:\n${this.text}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  kill(signal: NodeJS.Signals): void {
    if (this.running) process.kill(this.pid, signal)
  }

  /** Sends `signal` and waits for the end; after `patienceMs` it kills the program. */
  async end(signal: NodeJS.Signals = 'SIGTERM', patienceMs = 15_000): Promise<Exit> {
    this.kill(signal)
    const timer = setTimeout(() => this.kill('SIGKILL'), patienceMs)
    const exit = await this.exited
    clearTimeout(timer)
    return exit
  }
}

/** Starts a program that is ended with the test. */
export function start(scope: Scope, argv: string[]): Program {
  const [file = '', ...rest] = argv
  const program = new Program(spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'], env: cleanEnvironment() }))
  scope.teardown(() => program.end())
  return program
}

/** The command line of the built `bondsocks`, without what tap adds to every process's environment; put a namespace's argv around it. */
export function bondsocks(...args: string[]): string[] {
  return ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath, main, ...args]
}
