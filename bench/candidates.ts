/**
 * The candidates that are compared. All that speak SOCKS5 use the same `bondsocks hag`, except the one for comparison with Dante. Those
 * without a network set-up of their own get that of `bondsocks apply`, with the LAN's connections redirected to their port.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startDante } from '../test/support/dante.js'
import { bondsocks, type Program, start } from '../test/support/process.js'
import { type Bed, maxConnections, toolPath } from './bed.js'

export interface Running {
  /** The redirector's process; without a proxy there is none. */
  pid?: number
  /** The HAG's process, if the candidate has a HAG of its own. */
  hagPid?: number
  /** Descriptors for each connection. Default: 2. */
  descriptorsEach?: number
  stop(): Promise<unknown>
}

export interface Candidate {
  name: string
  /** A program that the candidate needs. If it is missing, the candidate is not measured. */
  needs?: string
  /** Measured for these figures only, and not in quick runs. */
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
  const config = `base { log_debug = off; log_info = off; log = stderr; daemon = off; redirector = iptables;
       redsocks_conn_max = ${maxConnections}; }
redsocks { local_ip = 0.0.0.0; local_port = ${port}; ip = ${bed.world.lab.addresses.hag}; port = ${hagPort}; type = socks5;
           splice = ${splice}; }
`
  const running = await foreign(bed, ['mptcpize', 'run', 'redsocks', '-c', bed.world.file('redsocks.conf', config)], undefined)
  // With splice, each connection has two pipes from its beginning.
  return { ...running, descriptorsEach: splice ? 6 : 2 }
}

/** Over plain TCP, so over one WAN: mptcpize replaces a function of libc, but Go makes its system calls itself. */
const v2ray = async (bed: Bed) => {
  const config = {
    log: { loglevel: 'warning' },
    // Otherwise a client gets its server's FIN only after a second or two.
    policy: { levels: { 0: { uplinkOnly: 0 } } },
    inbounds: [{ port, protocol: 'dokodemo-door', settings: { network: 'tcp', followRedirect: true } }],
    outbounds: [{ protocol: 'socks', settings: { servers: [{ address: bed.world.lab.addresses.hag, port: hagPort }] } }],
  }
  return foreign(bed, ['v2ray', '-config', bed.world.file('v2ray.json', JSON.stringify(config))], /started/)
}

async function whenReady({ world }: Bed, gateway: Program) {
  for (const { name } of world.lab.wans) await gateway.waitFor(new RegExp(`WAN ${name} is up`))
  // In its first second it finds out its HAG's capabilities and opens prepared connections.
  await sleep(1500)
  return { pid: gateway.pid, stop: () => gateway.end() }
}

const bondsocksWith = (config: object) => async (bed: Bed) => whenReady(bed, await bed.world.startGateway(config))

const toDante = async (bed: Bed) => {
  const address = bed.world.lab.addresses.hag2
  const dante = await startDante(bed.scope, bed.world, 'hag2', 'none')
  const { pid, stop } = await bondsocksWith({ hags: [{ address, port: hagPort }] })(bed)
  return { pid, hagPid: dante.pid, stop: () => stop().then(() => dante.end()) }
}

/** The gateway and the HAG of another checkout, which must be built. */
export const formerState = (folder: string): Candidate => ({
  name: 'former state',
  needs: join(folder, 'dist/main.js'),
  start: async (bed) => {
    const { lab } = bed.world
    const run = async (host: string, ready: RegExp, ...args: string[]) => {
      const program = start(bed.scope, lab.argv(host, [process.execPath, join(folder, 'dist/main.js'), ...args]))
      await program.waitFor(ready)
      return program
    }
    const limits = { max_connections: maxConnections }
    const hag = await run('hag2', /HAG listens/, 'hag', '-c', bed.world.config('hag2', limits))
    const config = bed.world.config('gateway', { ...limits, hags: [{ address: lab.addresses.hag2, port: hagPort }] })
    const { pid, stop } = await whenReady(bed, await run('cpe', /gateway runs/, 'run', '-c', config))
    return { pid, hagPid: hag.pid, stop: () => stop().then(() => hag.end()) }
  },
})

export const candidates: Candidate[] = [
  { name: 'direct', start: async () => ({ stop: async () => {} }) },
  { name: 'redsocks', needs: '/usr/sbin/redsocks', start: redsocks(true) },
  {
    name: 'redsocks without splice',
    needs: '/usr/sbin/redsocks',
    start: redsocks(false),
    figures: ['idle', 'short-connections', 'cpu-down', 'cpu-up'],
  },
  {
    name: 'v2ray',
    needs: '/usr/bin/v2ray',
    start: v2ray,
    // The other figures are about the second WAN, and an upload would never end, because it does not pass on a half-close.
    figures: ['idle', 'short-connections', 'cpu-down', 'first-byte', 'downloads'],
  },
  {
    name: 'yardstick',
    start: (bed) =>
      foreign(bed, [toolPath('yardstick'), String(port), bed.world.lab.addresses.hag, String(hagPort)], /yardstick listens/),
  },
  { name: 'bondsocks', start: bondsocksWith({ max_connections: maxConnections }) },
  {
    name: 'bondsocks without pool',
    start: bondsocksWith({ prepared_connections: 0 }),
    figures: ['first-byte', 'downloads'],
  },
  {
    name: 'bondsocks to Dante',
    needs: '/usr/sbin/danted',
    start: toDante,
    figures: ['short-connections', 'cpu-down', 'cpu-up'],
  },
]

export const isInstalled = ({ needs }: Candidate) => needs === undefined || existsSync(needs)
