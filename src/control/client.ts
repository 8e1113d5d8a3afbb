/** The other end of a control socket. */
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { BondsocksError } from '../base/errors.js'
import type { EventMessage } from './event.js'
import type { About } from './protocol.js'

/** A busy gateway on a slow processor. */
const timeoutMs = 10_000

export class ControlClient {
  readonly about: About
  readonly #socket: Socket
  readonly #lines: AsyncIterator<string>

  private constructor(about: About, socket: Socket, lines: AsyncIterator<string>) {
    this.about = about
    this.#socket = socket
    this.#lines = lines
  }

  /** Undefined if nobody listens there. Rejects with `NOT_ALLOWED` or `CONTROL`. */
  static async connect(path: string): Promise<ControlClient | undefined> {
    const socket = connect(path)
    const lines = createInterface({ input: socket, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]()
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)))
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve)
        socket.once('error', reject)
      })
      return new ControlClient((await nextOf(lines, path)) as About, socket, lines)
    } catch (cause) {
      socket.destroy()
      const { code } = cause as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined
      if (code === 'EACCES' || code === 'EPERM') {
        throw new BondsocksError('NOT_ALLOWED', `${path} is for root and the control_group of its config: run it with sudo`, {
          cause,
        })
      }
      throw cause
    }
  }

  /** Its answer to a command without arguments. Rejects with its error. */
  async ask(command: string): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ command })}\n`)
    const answer = Object(await nextOf(this.#lines, `the ${this.about.role}`))
    if (answer.error !== undefined) throw new BondsocksError(answer.error.code, answer.error.message)
    return answer[command]
  }

  /** What happens from now on, until the other end closes. Rejects as `ask` does. */
  async *follow(): AsyncGenerator<{ event: EventMessage } | { missed: number }> {
    await this.ask('monitor')
    this.#socket.setTimeout(0)
    for (let next = await this.#lines.next(); !next.done; next = await this.#lines.next()) yield JSON.parse(next.value)
  }

  close(): void {
    this.#socket.destroy()
  }
}

async function nextOf(lines: AsyncIterator<string>, who: string): Promise<unknown> {
  const { value, done } = await lines.next().catch((cause: Error) => {
    throw new BondsocksError('CONTROL', `${who} does not answer: ${cause.message}`, { cause })
  })
  if (done) throw new BondsocksError('CONTROL', `${who} closed the control connection: it is ending, or asked by too many`)
  return JSON.parse(value)
}
