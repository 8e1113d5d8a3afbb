import { isatty } from 'node:tty'
import { BondsocksError } from '../base/errors.js'
import { printable } from '../base/printable.js'
import { ControlClient } from '../control/client.js'
import { controlPaths } from '../control/path.js'
import type { GatewayStatus } from '../control/status.js'
import type { Command } from './command.js'
import { kernelText, parseKernelEvent } from './kernel-events.js'

export const command: Command = {
  help: `Usage: bondsocks monitor [--json]

What happens to the gateway and the HAGs of this network namespace, as it happens: WANs, HAGs, roles, network set-up, limits. As root also
the kernel's MPTCP events: connections and subflows, with the names of WANs. Until SIGINT, or until nothing runs any more.

      --json   one JSON object a line: first {"about":...} of each, then {"event":...}, {"kernel":...}, or {"missed":N} if
               this was too slow to take N events

Exit codes: 0 ended, 1 failed, 2 wrong use, 3 nothing runs.
`,
  options: { json: { type: 'boolean' } },
  async run(values) {
    const found = await Promise.all((await controlPaths()).map((path) => ControlClient.connect(path)))
    const clients = found.filter((client) => client !== undefined)
    if (clients.length === 0) {
      process.stderr.write('nothing of bondsocks runs in this network namespace\n')
      return 3
    }
    const ended = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => ended.abort())
    ended.signal.addEventListener('abort', () => {
      for (const client of clients) client.close()
    })
    const say = (message: object, text: string) =>
      process.stdout.write(values.json === true ? `${JSON.stringify(message)}\n` : `${printable(text)}\n`)
    const wans = new Map<string, string>()
    await Promise.all(clients.map((client) => nameWans(client, wans)))
    for (const { about } of clients) say({ about }, `monitoring the ${about.role} ${about.bondsocks}, process ${about.pid}`)
    const kernel = watchKernelEvents(wans, say, ended.signal)
    await Promise.all(clients.map((client) => follow(client, wans, say)))
    ended.abort()
    await kernel
    return 0
  },
}

type Say = (message: object, text: string) => void

/** The names of WANs by their addresses. */
async function nameWans(client: ControlClient, wans: Map<string, string>): Promise<void> {
  if (client.about.role !== 'gateway') return
  const { wans: all } = (await client.ask('status')) as GatewayStatus
  for (const { name, links } of all) for (const { address } of links) if (address !== undefined) wans.set(address, name)
}

async function follow(client: ControlClient, wans: Map<string, string>, say: Say): Promise<void> {
  try {
    for await (const message of client.follow()) {
      if ('missed' in message) say(message, `${message.missed} events were missed: this was too slow`)
      else {
        const { at, level, text, type } = message.event
        if (type === 'wan-list') nameThoseOf(message.event.wans, wans)
        say(message, `${timeOf(at)} ${level === 'warn' ? 'warn ' : ''}${text}`)
      }
    }
  } catch (error) {
    // We, or the program, have closed it.
    if (!(error instanceof BondsocksError) && (error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error
  }
}

function nameThoseOf(list: unknown, wans: Map<string, string>): void {
  for (const { name, address4, address6 } of list as { name: string; address4?: string; address6?: string }[]) {
    for (const address of [address4, address6]) if (address !== undefined) wans.set(address, name)
  }
}

async function watchKernelEvents(wans: ReadonlyMap<string, string>, say: Say, signal: AbortSignal): Promise<void> {
  const { streamCommand } = await import('../network/kernel/command.js')
  let rest = ''
  const take = (text: string) => {
    const lines = `${rest}${text}`.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const event = parseKernelEvent(line, (address) => wans.get(address))
      const at = new Date().toISOString()
      if (event !== undefined) say({ kernel: { at, ...event } }, `${timeOf(at)} ${kernelText(event)}`)
    }
  }
  const why = await streamCommand(['ip', 'mptcp', 'monitor'], take, signal)
  if (signal.aborted) return
  const reason = process.getuid?.() === 0 ? why.split('\n')[0] : 'they need root'
  process.stderr.write(`without the kernel's MPTCP events: ${reason}\n`)
}

/** Local time for people who look at it, as a log has it for others. */
const timeOf = (at: string) => (isatty(1) ? new Date(at).toTimeString().slice(0, 8) : at)
