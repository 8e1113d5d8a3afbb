/** A lab: a home's LAN, its gateway, a HAG and a server, each in a network namespace of its own. Several can exist at once. */
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BondsocksError } from '../base/errors.js'
import { type ExecOptions, type Executed, execute, must } from './commands.js'
import { awaitCarrier, bringUp, configure } from './hosts.js'
import { endLinks, endProcesses } from './processes.js'
import { addVeth, hasNetem, type Shaper, type ShaperKind, shaperOf } from './shaper.js'
import { type Addresses, type Plan, planOf, type Shape, type Topology, topologies, type Wire } from './topology.js'

export type { Executed } from './commands.js'
export type { Topology } from './topology.js'

export interface LabWan {
  name: string
  interface: string
  address4: string
  address6?: string
  gateway4: string
  /** Mbit/s on the line. */
  rateDown: number
  rateUp: number
  /** One way. */
  delayMs: number
}

export interface Lab {
  name: string
  topology: Topology
  /** How the WANs are made; `veth` is not shaped. */
  links: ShaperKind
  /** The WANs' rates are divided by this. */
  slow: number
  /** Host to namespace. hybrid, ethernet: lan, cpe, hag, hag2, server. two-routers: client, r1, r2, server. */
  hosts: Record<string, string>
  /** The WANs as they were when this object was made. */
  wans: LabWan[]
  /** Empty if the topology has no such host; two-routers: `lan` is the client. */
  addresses: Addresses
  /** Paths of config files for this lab; they do not exist for two-routers. */
  configs: Configs
  /** The command line that runs `argv` in a host. */
  argv(host: string, argv: readonly string[]): string[]
  /** Runs a command in a host to its end. Rejects only if it cannot be started. */
  exec(host: string, argv: readonly string[], options?: ExecOptions): Promise<Executed>
  /** Changes a WAN at once; packets on their way keep their arrival time. */
  setLink(wan: string, change: Partial<Shape>): Promise<void>
  /** Loses everything silently while the link stays up. */
  blackHole(wan: string, on: boolean): Promise<void>
  /** Pulls the plug on the CPE's side, or puts it in again. */
  carrier(wan: string, up: boolean): Promise<void>
  /** Removes the CPE's device, as when a modem is unplugged or a PPP session ends. */
  unplug(wan: string): Promise<void>
  /** Brings the device back with another index, and with this IPv4 address (words of `ip address add`); default: the first one. */
  plugIn(wan: string, address4?: string): Promise<void>
  /** Bytes on each WAN so far, from the CPE's interface counters. */
  wanBytes(): Promise<Record<string, { down: number; up: number }>>
  down(): Promise<void>
}

export interface Configs {
  gateway: string
  /** `gateway` with both HAGs. */
  gatewayTwoHags: string
  /** `gateway` without the WANs' gateways: they are taken from the routes. */
  gatewayLearned: string
  hag: string
  hag2: string
}

/** The content of a lab's `lab.json`. */
interface LabRecord {
  topology: Topology
  links: ShaperKind
  slow: number
  wans: Record<string, { shape: Shape; isBlackHole: boolean }>
}

const root = '/run/bondsocks/lab'
const folderOf = (name: string) => join(root, name)
const namespaceOf = (name: string, host: string) => `bs-${name}-${host}`
const recordFile = 'lab.json'

export interface LabOptions {
  topology: Topology
  name?: string | undefined
  /** False: WANs as fast as the machine, for CPU measurements. */
  shaped?: boolean
  /** How to shape them. Default: netem if the kernel has it, otherwise our emulator. */
  links?: 'netem' | 'emulator'
  /** Divides the WANs' rates, for a machine that is too slow for them. */
  slow?: number
}

/** Throws BondsocksError; then it leaves nothing behind. */
export async function labUp({ topology, shaped = true, slow = 1, ...options }: LabOptions): Promise<Lab> {
  requireRoot()
  const name = checkName(options.name ?? randomBytes(3).toString('hex'))
  const plan = planOf(topology, slow)
  mkdirSync(root, { recursive: true })
  try {
    mkdirSync(folderOf(name))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
    throw new BondsocksError('LAB_EXISTS', `there is a lab ${name} already: \`bondsocks lab down ${name}\` removes it`, { cause })
  }
  try {
    const links = shaped ? options.links : 'veth'
    const record = await build(name, plan, { topology, slow, links })
    return makeLab(name, plan, record)
  } catch (error) {
    await labDown(name)
    throw error
  }
}

/** A lab that exists already. Throws if there is none of this name. */
export async function labAttach(name: string): Promise<Lab> {
  if (!existsSync(join(folderOf(checkName(name)), recordFile))) {
    const names = await labList()
    const known = names.length === 0 ? 'none is up: `bondsocks lab up` makes one' : `there are: ${names.join(', ')}`
    throw new BondsocksError('NO_LAB', `there is no lab ${name}; ${known}`)
  }
  const record = readRecord(name)
  return makeLab(name, planOf(record.topology, record.slow), record)
}

/** Removes a lab, or what is left of it, with every process that runs in it. Idempotent. */
export async function labDown(name: string): Promise<void> {
  requireRoot()
  const folder = folderOf(checkName(name))
  await endLinks(folder)
  const hosts = new Set(topologies.flatMap((topology) => planOf(topology).hosts))
  const namespaces = [...hosts].map((host) => namespaceOf(name, host)).filter((one) => existsSync(`/run/netns/${one}`))
  await Promise.all(
    namespaces.map(async (namespace) => {
      await endProcesses(namespace)
      await must(['ip', 'netns', 'delete', namespace])
      rmSync(`/etc/netns/${namespace}`, { recursive: true, force: true })
    }),
  )
  rmSync(folder, { recursive: true, force: true })
  for (const empty of [root, '/run/bondsocks']) {
    try {
      rmdirSync(empty)
    } catch {
      // Other labs use it.
    }
  }
}

/** Only root can look. */
export async function labList(): Promise<string[]> {
  requireRoot()
  return existsSync(root) ? readdirSync(root).sort() : []
}

function requireRoot(): void {
  if (process.getuid?.() === 0) return
  throw new BondsocksError('NOT_ROOT', 'the lab makes network namespaces, which only root may: try it with sudo')
}

function checkName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/.test(name)) return name
  throw new BondsocksError('USAGE', `${name} is no name for a lab: use letters, digits, - and _`, { exitCode: 2 })
}

type Wishes = Pick<LabRecord, 'topology' | 'slow'> & { links: LabRecord['links'] | undefined }

async function build(name: string, plan: Plan, { topology, slow, ...wishes }: Wishes): Promise<LabRecord> {
  const folder = folderOf(name)
  const inLab = (host: string) => namespaceOf(name, host)
  for (const [file, text] of Object.entries(plan.configs)) writeFileSync(join(folder, file), text)
  for (const host of plan.hosts) await must(['ip', 'netns', 'add', inLab(host)])
  const links = wishes.links ?? ((await hasNetem(inLab(plan.edge))) ? 'netem' : 'emulator')
  const shapedWires = plan.wires.filter(({ shape }) => shape !== undefined)
  const wans = Object.fromEntries(shapedWires.map(({ name, shape }) => [name, { shape: shape as Shape, isBlackHole: false }]))
  for (const { ends, shape } of plan.wires) if (shape === undefined) await addVeth(ends, inLab)
  await shaperOf(links, folder, inLab).make(shapedWires)
  await Promise.all(plan.hosts.map((host) => configure(host, plan, inLab(host))))
  await Promise.all(plan.hosts.map((host) => awaitCarrier(inLab(host))))
  const record = { topology, links, slow, wans } satisfies LabRecord
  writeRecord(name, record)
  return record
}

function writeRecord(name: string, record: LabRecord): void {
  writeFileSync(join(folderOf(name), recordFile), JSON.stringify(record))
}

function readRecord(name: string): LabRecord {
  return JSON.parse(readFileSync(join(folderOf(name), recordFile), 'utf8')) as LabRecord
}

function makeLab(name: string, plan: Plan, record: LabRecord): Lab {
  const folder = folderOf(name)
  const inLab = (host: string) => namespaceOf(name, host)
  const shaper: Shaper = shaperOf(record.links, folder, inLab)
  const shapedWires = plan.wires.filter(({ shape }) => shape !== undefined)

  const wireOf = (wan: string): Wire => {
    const found = shapedWires.find((wire) => wire.name === wan)
    if (found !== undefined) return found
    const names = shapedWires.map((wire) => wire.name).join(', ')
    throw new BondsocksError('USAGE', `lab ${name} has no WAN ${wan}; it has ${names}`, { exitCode: 2 })
  }
  const change = async (wan: string, make: (now: LabRecord['wans'][string]) => LabRecord['wans'][string]) => {
    const wire = wireOf(wan)
    // Another process may have changed it.
    const record = readRecord(name)
    const next = make(record.wans[wan] as LabRecord['wans'][string])
    await shaper.set(wire, next.isBlackHole ? { ...next.shape, lossDown: 1, lossUp: 1 } : next.shape)
    record.wans[wan] = next
    writeRecord(name, record)
  }
  const argv = (host: string, words: readonly string[]) => {
    if (!plan.hosts.includes(host)) {
      throw new BondsocksError('USAGE', `lab ${name} has no host ${host}; it has ${plan.hosts.join(', ')}`, { exitCode: 2 })
    }
    return ['ip', 'netns', 'exec', inLab(host), ...words]
  }

  return {
    name,
    topology: record.topology,
    links: record.links,
    slow: record.slow,
    hosts: Object.fromEntries(plan.hosts.map((host) => [host, inLab(host)])),
    wans: shapedWires.map((wire) => describeWan(wire, record.wans[wire.name]?.shape ?? (wire.shape as Shape))),
    addresses: plan.addresses,
    configs: {
      gateway: join(folder, 'gateway.yaml'),
      gatewayTwoHags: join(folder, 'gateway-two-hags.yaml'),
      gatewayLearned: join(folder, 'gateway-learned.yaml'),
      hag: join(folder, 'hag.yaml'),
      hag2: join(folder, 'hag2.yaml'),
    },
    argv,
    exec: async (host, words, options) => execute(argv(host, words), options),
    setLink: (wan, shape) => change(wan, (now) => ({ ...now, shape: { ...now.shape, ...shape } })),
    blackHole: (wan, on) => change(wan, (now) => ({ ...now, isBlackHole: on })),
    carrier: async (wan, up) => shaper.carrier(wireOf(wan), up),
    async unplug(wan) {
      const [{ host, device }] = wireOf(wan).ends
      await must(['ip', '-n', inLab(host), 'link', 'delete', 'dev', device])
    },
    async plugIn(wan, address4) {
      const wire = wireOf(wan)
      await shaper.remake({ ...wire, shape: readRecord(name).wans[wan]?.shape as Shape })
      const [{ addresses, ...near }, far] = wire.ends
      const [own = '', ...others] = addresses
      for (const { host, device, addresses } of [far, { ...near, addresses: [address4 ?? own, ...others] }]) {
        const routes = (plan.routes[host] ?? []).filter((route) => route.includes(` dev ${device} `))
        const lines = [...bringUp({ device, addresses }), ...routes.map((route) => `route add ${route}`)]
        await must(['ip', '-n', inLab(host), '-batch', '-'], `${lines.join('\n')}\n`)
      }
    },
    async wanBytes() {
      const links = JSON.parse(await must(['ip', '-n', inLab(plan.edge), '-s', '-j', 'link', 'show'])) as {
        ifname: string
        stats64: Record<'rx' | 'tx', { bytes: number }>
      }[]
      const counters = shapedWires.map(({ name, ends: [{ device }] }) => {
        const stats = links.find(({ ifname }) => ifname === device)?.stats64
        return [name, { down: stats?.rx.bytes ?? 0, up: stats?.tx.bytes ?? 0 }] as const
      })
      return Object.fromEntries(counters)
    },
    down: () => labDown(name),
  }
}

function describeWan({ name, ends: [near, far] }: Wire, { rateDown, rateUp, delayMs }: Shape): LabWan {
  const bare = (address = '') => address.split('/')[0] as string
  const address6 = near.addresses[1]
  const wan: LabWan = {
    name,
    interface: near.device,
    address4: bare(near.addresses[0]),
    gateway4: bare(far.addresses[0]),
    rateDown,
    rateUp,
    delayMs,
  }
  if (address6 !== undefined) wan.address6 = bare(address6)
  return wan
}
