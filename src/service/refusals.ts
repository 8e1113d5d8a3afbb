/** Logs refused clients: each address within a second, then once a minute while it goes on. Suitable for fail2ban. */

import { formatSocketAddress } from '../base/address.js'
import type { LimitTexts } from '../config/defaults.js'
import type { Engine, Refusal } from '../engine/contract.js'
import type { Log } from '../telemetry/log.js'

/** How often to ask the engine who was refused, so that a flood does not keep us busy. */
const lookMs = 1000
const summaryMs = 60_000
/** Lines in that time, so that a flood does not fill the disk. The clients with the most refusals get one. */
const maxLines = 10
/** All others are counted together. */
const maxRemembered = 1000

function textOf(
  { cause, client, destination = { address: '', port: 0 } }: Refusal,
  limits: Pick<LimitTexts, 'perClient'>,
): string {
  const target = formatSocketAddress(destination)
  switch (cause) {
    case 'not-a-client':
      return `refused ${client}: not in \`clients\``
    case 'method':
      return `refused ${client}: it offers no way to log in that is taken here: a user name and password where there is a users_file`
    case 'credentials':
      return `refused ${client}: wrong user name or password`
    case 'share':
      return `refused ${client}: it has ${limits.perClient}`
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
  readonly #limits: Pick<LimitTexts, 'perClient'>
  readonly #log: Pick<Log, 'warn'>
  /** Runs for a moment after each look. */
  #pause: NodeJS.Timeout | undefined
  /** Runs while somebody is refused. */
  #minute: NodeJS.Timeout | undefined
  #hasMore = false
  /** Clients that have had a line in this minute, and how many more lines it may have. */
  #named = new Set<string>()
  #room = maxLines
  /** Refusals that wait for the end of the minute. */
  #waiting = new Map<string, Refusal>()

  constructor(engine: Pick<Engine, 'takeRefusals'>, limits: Pick<LimitTexts, 'perClient'>, log: Pick<Log, 'warn'>) {
    this.#engine = engine
    this.#limits = limits
    this.#log = log
  }

  /** Handles the engine's event `refused`. */
  refused(): void {
    this.#hasMore = true
    if (this.#pause !== undefined) return
    this.#look()
    this.#pause = setTimeout(() => {
      this.#pause = undefined
      if (this.#hasMore) this.refused()
    }, lookMs).unref()
  }

  /** Writes what is left. */
  close(): void {
    clearTimeout(this.#pause)
    clearTimeout(this.#minute)
    if (this.#minute === undefined) return
    this.#pause = undefined
    this.#minute = undefined
    if (this.#hasMore) this.#look()
    clearTimeout(this.#minute)
    this.#minute = undefined
    this.#summarize(' since then')
  }

  #look(): void {
    this.#hasMore = false
    this.#minute ??= setTimeout(() => this.#endMinute(), summaryMs).unref()
    for (const one of this.#engine.takeRefusals().sort(byCount)) {
      const key = keyOf(one)
      if (one.client !== undefined && this.#room > 0 && !this.#named.has(key)) {
        this.#room -= 1
        this.#named.add(key)
        this.#write(one, '')
      } else
        this.#keep(one.client === undefined || this.#waiting.size >= maxRemembered ? { cause: one.cause, count: one.count } : one)
    }
  }

  #keep(one: Refusal): void {
    const known = this.#waiting.get(keyOf(one))
    this.#waiting.set(keyOf(one), { ...one, ...known, count: one.count + (known?.count ?? 0) })
  }

  #endMinute(): void {
    this.#minute = undefined
    if (this.#hasMore) this.#look()
    clearTimeout(this.#minute)
    this.#named.clear()
    this.#room = maxLines
    this.#minute = this.#summarize(' in the last minute') ? setTimeout(() => this.#endMinute(), summaryMs).unref() : undefined
  }

  /** Returns whether anybody was refused. */
  #summarize(when: string): boolean {
    const refusals = [...this.#waiting.values()].sort(byCount)
    this.#waiting.clear()
    const named = refusals.filter(({ client }) => client !== undefined).slice(0, maxLines)
    for (const one of named) {
      this.#named.add(keyOf(one))
      this.#write(one, when)
    }
    const count = refusals.filter((one) => !named.includes(one)).reduce((sum, one) => sum + one.count, 0)
    if (count > 0) this.#log.warn(`refused others ${count} times${when}`, { count })
    return refusals.length > 0
  }

  #write(one: Refusal, when: string): void {
    const { cause, count, client } = one
    const times = count === 1 && when === '' ? '' : ` (${count === 1 ? 'once' : `${count} times`}${when})`
    this.#log.warn(`${textOf(one, this.#limits)}${times}`, { client, cause, count })
  }
}

const byCount = (one: Refusal, other: Refusal) => other.count - one.count
const keyOf = ({ cause, client = '' }: Refusal) => `${cause} ${client}`
