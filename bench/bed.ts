/** Where candidates are measured: a lab with a HAG and a server, and clients in its LAN that check every byte. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { World } from '../test/support/hybrid.js'
import type { Scope } from '../test/support/namespaces.js'
import { privateMemory } from '../test/support/proc.js'
import { type Program, start } from '../test/support/process.js'

const folder = fileURLToPath(new URL('../build/bench/', import.meta.url))
export const loadPort = 9200
/** More than the figures need: by default bondsocks and redsocks keep a quarter of the descriptors or more for pipes. */
export const maxConnections = 20_000

/** The file of one of the bench's own C++ programs. */
export const toolPath = (name: 'load' | 'yardstick') => `${folder}${name}`

export async function buildTools(): Promise<void> {
  mkdirSync(folder, { recursive: true })
  const build = async (name: 'load' | 'yardstick') => {
    const source = fileURLToPath(new URL(`${name}.cpp`, import.meta.url))
    if (existsSync(toolPath(name)) && statSync(toolPath(name)).mtimeMs > statSync(source).mtimeMs) return
    const flags = ['-std=c++17', '-O2', '-fno-exceptions', '-pthread']
    await promisify(execFile)(process.env.CXX ?? 'g++', [...flags, '-o', toolPath(name), source])
  }
  await Promise.all([build('load'), build('yardstick')])
}

/** What a client reports: see load.cpp. */
export interface Transfer {
  bytes: number
  /** From the connect call to the first byte. */
  firstMs: number
  ms: number
  windowBytes: number
}

export class Bed {
  private constructor(
    readonly world: World,
    readonly hag: Program,
    readonly hagStartMemory: number,
    readonly scope: Scope,
    readonly quick: boolean,
  ) {}

  static async create(scope: Scope, options: { shaped: boolean; quick: boolean }): Promise<Bed> {
    const world = await World.create(scope, { shaped: options.shaped })
    // The sockets that two candidates leave in TIME_WAIT use up the usual range of ports.
    for (const host of ['lan', 'cpe', 'hag'])
      await world.execute(host)('sysctl', '-qw', 'net.ipv4.ip_local_port_range=16384 65535')
    const server = start(scope, world.lab.argv('server', [toolPath('load'), 'serve', String(loadPort)]))
    await server.waitFor(/serving/)
    const hag = await world.startHag({ max_connections: maxConnections })
    return new Bed(world, hag, privateMemory(hag.pid), scope, options.quick)
  }

  startClient(verb: string, ...numbers: number[]): Program {
    const words = [verb, this.world.lab.addresses.server, loadPort, ...numbers].map(String)
    return start(this.scope, this.world.lab.argv('lan', [toolPath('load'), ...words]))
  }

  /** Runs a client to its end. Throws if a byte was wrong or missing. */
  async load(verb: string, ...numbers: number[]): Promise<Transfer> {
    return this.outcome(this.startClient(verb, ...numbers), verb)
  }

  async outcome(client: Program, what: string): Promise<Transfer> {
    const { code } = await client.exited
    const seen = client.output.trim()
    if (code !== 0) throw new Error(`${what}: a byte was wrong or missing: ${seen || 'the client did not end well'}`)
    return JSON.parse(seen) as Transfer
  }
}
