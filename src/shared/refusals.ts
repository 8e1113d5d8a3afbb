/** The log of refused clients: the first at once, then once a minute who was, as long as somebody is. */
import type { Engine, Refusal } from '../native/index.js'
import type { Log } from '../telemetry/log.js'
import { formatSocketAddress } from './address.js'

const everyMs = 60_000
/** A flood must not fill the disk; those with the most are the most telling. */
const maxLines = 10

function textOf({ cause, client, destination = { address: '', port: 0 } }: Refusal): string {
  const target = formatSocketAddress(destination)
  switch (cause) {
    case 'not-a-client':
      return `refused ${client}: not in \`clients\``
    case 'share':
      return `refused ${client}: it has max_connections_per_client connections`
    case 'waited':
      return `refused ${client}: it had asked for nothing yet, and others needed its place`
    case 'not-redirected':
      return (
        `refused a connection from ${client} to our own listener ${target}: nothing redirected it, or a REDIRECT rule that takes ` +
        'local destinations too: let that rule in `iptables -t nat -S` skip them with `-m addrtype ! --dst-type LOCAL`'
      )
    case 'loop':
      return (
        `refused a redirect loop: the gateway's own connection from ${client} to ${target} was redirected to us: take away the ` +
        'REDIRECT rule in the OUTPUT chain (`iptables -t nat -S OUTPUT`), or limit it to LAN interfaces with `-i`'
      )
  }
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
    for (const one of named) {
      const { cause, count, client } = one
      const times = count === 1 && when === '' ? '' : ` (${count === 1 ? 'once' : `${count} times`}${when})`
      this.#log.warn(`${textOf(one)}${times}`, { client, cause, count })
    }
    const others = refusals.filter((one) => !named.includes(one))
    const count = others.reduce((sum, one) => sum + one.count, 0)
    if (count > 0) this.#log.warn(`refused others ${count} times${when}`, { count })
    return refusals.length > 0
  }
}
