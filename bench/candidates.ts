/**
 * What is compared. All that speak SOCKS5 go to the same `bondsocks hag`; those that have no network set-up of their own get that of
 * `bondsocks apply`, with the LAN's connections sent to their port.
 */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { bondsocks, start } from '../test/support/process.js'
import { type Bed, toolPath } from './bed.js'

export interface Running {
  /** Of the redirector; there is none without a proxy. */
  pid?: number
  stop(): Promise<unknown>
}

export interface Candidate {
  name: string
  /** Measured only where it is on the machine. */
  needs?: string
  /** Shown for these figures alone, and not in quick runs. */
  figures?: readonly string[]
  start(bed: Bed): Promise<Running>
}

const port = 12346
const hagPort = 1080

async function foreign(bed: Bed, argv: string[], ready: RegExp | undefined): Promise<Running> {
  const { world } = bed
  const program = start(bed.scope, world.lab.argv('cpe', argv))
  const cpe = world.execute('cpe')
  await cpe(...bondsocks('apply', '-c', world.config('gateway', { listen: { port } })))
  if (ready !== undefined) await program.waitFor(ready)
  await sleep(300)
  if (!program.running) throw new Error(`${argv.join(' ')} ended:\n${program.output}`)
  return {
    pid: program.pid,
    stop: async () => {
      await cpe(...bondsocks('remove'))
      await program.end('SIGKILL')
    },
  }
}

const redsocks = (splice: boolean) => async (bed: Bed) => {
  const config = `base { log_debug = off; log_info = off; log = stderr; daemon = off; redirector = iptables; }
redsocks { local_ip = 0.0.0.0; local_port = ${port}; ip = ${bed.world.lab.addresses.hag}; port = ${hagPort}; type = socks5; splice = ${splice}; }
`
  return foreign(bed, ['mptcpize', 'run', 'redsocks', '-c', bed.world.file('redsocks.conf', config)], undefined)
}

const bondsocksWith =
  (config: object) =>
  async ({ world }: Bed) => {
    const gateway = await world.startGateway(config)
    for (const { name } of world.lab.wans) await gateway.waitFor(new RegExp(`WAN ${name} is up`))
    // What it learns about its HAG, and opens in advance, it does in its first second.
    await sleep(1500)
    return { pid: gateway.pid, stop: () => gateway.end() }
  }

export const candidates: Candidate[] = [
  { name: 'direct', start: async () => ({ stop: async () => {} }) },
  { name: 'redsocks', needs: '/usr/sbin/redsocks', start: redsocks(true) },
  {
    ...{ name: 'redsocks, no splice', needs: '/usr/sbin/redsocks', start: redsocks(false) },
    figures: ['idle', 'short-connections', 'cpu-per-gb'],
  },
  {
    name: 'yardstick',
    start: (bed) =>
      foreign(bed, [toolPath('yardstick'), String(port), bed.world.lab.addresses.hag, String(hagPort)], /yardstick listens/),
  },
  { name: 'bondsocks', start: bondsocksWith({}) },
  {
    ...{ name: 'bondsocks, no pool', start: bondsocksWith({ prepared_connections: 0 }) },
    figures: ['first-byte', 'downloads'],
  },
]

export const isInstalled = ({ needs }: Candidate) => needs === undefined || existsSync(needs)
