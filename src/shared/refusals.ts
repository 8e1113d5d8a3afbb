/** The log of refused clients: the first at once, then once a minute who was, as long as somebody is. */
import type { Engine, Refusal } from '../native/index.js'
import type { Log } from '../telemetry/log.js'

const everyMs = 60_000
/** A flood must not fill the disk; those with the most are the most telling. */
const maxLines = 10

const causes: Record<Refusal['cause'], string> = {
  'not-a-client': 'not in `clients`',
  share: 'it has max_connections_per_client connections',
  waited: 'it had asked for nothing yet, and others needed its place',
}

export class Refusals {
  readonly #engine: Pick<Engine, 'takeRefusals'>
  readonly #log: Pick<Log, 'warn'>
  #timer: NodeJS.Timeout | undefined

  constructor(engine: Pick<Engine, 'takeRefusals'>, log: Pick<Log, 'warn'>) {
    this.#engine = engine
    this.#log = log
  }

  /** Takes the engine's `refused`. */
  refused(): void {
    if (this.#timer !== undefined) return
    this.#write('')
    this.#wait()
  }

  /** Writes what is left. */
  close(): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#write(' since then')
  }

  #wait(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (this.#write(' in the last minute')) this.#wait()
    }, everyMs)
    this.#timer.unref()
  }

  /** Returns whether anybody was refused. */
  #write(when: string): boolean {
    const refusals = this.#engine.takeRefusals().sort((one, other) => other.count - one.count)
    const named = refusals.filter(({ client }) => client !== undefined).slice(0, maxLines)
    for (const { cause, count, client } of named) {
      const times = count === 1 && when === '' ? '' : ` (${count === 1 ? 'once' : `${count} times`}${when})`
      this.#log.warn(`refused ${client}: ${causes[cause]}${times}`, { client, cause, count })
    }
    const others = refusals.filter((one) => !named.includes(one))
    const count = others.reduce((sum, one) => sum + one.count, 0)
    if (count > 0) this.#log.warn(`refused others ${count} times${when}`, { count })
    return refusals.length > 0
  }
}
