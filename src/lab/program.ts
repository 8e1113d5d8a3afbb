/** A program in a lab, started, listened to, and ended by its process id. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { BondsocksError } from '../shared/errors.js'

const startTimeoutMs = 15_000
const patienceMs = 3000
/** Enough of what it said last to tell why it ended. */
const keptCharacters = 65536

export class Program {
  #text = ''
  readonly #child: ChildProcess
  readonly #title: string

  constructor(title: string, [file = '', ...args]: readonly string[]) {
    this.#title = title
    this.#child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    // What cannot be started has no process id: see `waitFor`.
    this.#child.on('error', (error) => {
      this.#text += error.message
    })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on('data', (data: Buffer) => {
        this.#text = `${this.#text}${data}`.slice(-keptCharacters)
      })
    }
  }

  get #runs(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Resolves once it has printed that; rejects with its last line where it ends before. */
  async waitFor(text: string): Promise<void> {
    const deadline = performance.now() + startTimeoutMs
    while (!this.#text.includes(text)) {
      if (!this.#runs || performance.now() > deadline) {
        const last = this.#text.trim().split('\n').at(-1) || 'it said nothing'
        throw new BondsocksError('LAB_PROGRAM', `${this.#title} ${this.#runs ? 'does not get ready' : 'ended'}: ${last}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** A second SIGTERM tells our programs not to wait for connections. */
  async end(): Promise<void> {
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
