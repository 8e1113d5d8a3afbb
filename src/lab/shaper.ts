/** How a lab's shaped wires are made: netem on a veth where the kernel has it, else our link emulator. */
import { spawn } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { BondsocksError } from '../base/errors.js'
import { execute, must } from './commands.js'
import type { LinkDirection } from './emulator.js'
import { nodeArgv } from './node.js'
import type { LinkPlan, LinkRequest } from './programs/links.js'
import type { End, Shape, Wire } from './topology.js'

/** `veth` does not shape at all. */
export type ShaperKind = 'netem' | 'emulator' | 'veth'

export interface Shaper {
  /** Makes the devices, without addresses. */
  make(wires: readonly Wire[]): Promise<void>
  /** The same for a wire whose first end has vanished. */
  remake(wire: Wire): Promise<void>
  set(wire: Wire, shape: Shape): Promise<void>
  /** The cable at the first end. */
  carrier(wire: Wire, up: boolean): Promise<void>
}

export type NamespaceOf = (host: string) => string

/** Tries it in a namespace that nothing uses yet. */
export async function hasNetem(namespace: string): Promise<boolean> {
  const { code } = await execute(['tc', '-n', namespace, 'qdisc', 'add', 'dev', 'lo', 'root', 'netem', 'delay', '1ms'])
  if (code === 0) await must(['tc', '-n', namespace, 'qdisc', 'del', 'dev', 'lo', 'root'])
  return code === 0
}

export function shaperOf(kind: ShaperKind, folder: string, namespaceOf: NamespaceOf): Shaper {
  return kind === 'emulator' ? emulator(folder, namespaceOf) : veth(namespaceOf, kind === 'netem')
}

export async function addVeth([first, second]: readonly [End, End], namespaceOf: NamespaceOf): Promise<void> {
  const peer = ['peer', 'name', second.device, 'netns', namespaceOf(second.host)]
  await must(['ip', 'link', 'add', 'name', first.device, 'netns', namespaceOf(first.host), 'type', 'veth', ...peer])
}

const mbit = 1e6
/** An Ethernet frame of a full packet. */
const frameBytes = 1514

function directions(shape: Shape): { up: LinkDirection; down: LinkDirection } {
  const direction = (rate: number, loss: number): LinkDirection => ({
    rate: rate * mbit,
    delayUs: shape.delayMs * 1000,
    // At slow rates a few packets must fit all the same.
    queueBytes: Math.max(4 * frameBytes, (rate * mbit * shape.queueMs) / 8000),
    loss,
  })
  return { up: direction(shape.rateUp, shape.lossUp), down: direction(shape.rateDown, shape.lossDown) }
}

/** For a timer that is late: what the line would have carried meanwhile passes at once. */
const burstMs = 4
/** Stands for no limit. */
const fastest = 100e9
const farTooMuch = 1e9

/**
 * netem delays and loses; the line behind it has a queue of its own, because netem's counts packets, whatever their size, and those that are
 * on their way as well. And a full queue of the line's, unlike netem's, tells the sending socket nothing, as out there.
 */
function veth(namespaceOf: NamespaceOf, shapes: boolean): Shaper {
  const netem = async ({ host, device }: End, { rate, delayUs, queueBytes, loss }: LinkDirection) => {
    const line = rate === 0 ? { rate: fastest, limit: farTooMuch } : { rate, limit: Math.round(queueBytes) }
    const burst = Math.max(2 * frameBytes, Math.round((line.rate * burstMs) / 8000))
    const lines = [
      `qdisc replace dev ${device} root handle 1: netem limit 1000000 delay ${delayUs}us loss ${loss * 100}%`,
      `qdisc replace dev ${device} parent 1:1 handle 2: tbf rate ${line.rate}bit burst ${burst} limit ${line.limit}`,
    ]
    await must(['tc', '-n', namespaceOf(host), '-batch', '-'], `${lines.join('\n')}\n`)
  }
  const set = async ({ ends: [near, far] }: Wire, shape: Shape) => {
    const { up, down } = directions(shape)
    await netem(near, up)
    await netem(far, down)
  }
  const make = async (wire: Wire) => {
    await addVeth(wire.ends, namespaceOf)
    if (!shapes || wire.shape === undefined) return
    // A segment of 64 KB would pass the line as one packet.
    for (const { host, device } of wire.ends) {
      await must(['ip', '-n', namespaceOf(host), 'link', 'set', 'dev', device, 'gso_max_segs', '1'])
    }
    await set(wire, wire.shape)
  }
  return {
    async make(wires) {
      for (const wire of wires) await make(wire)
    },
    remake: make,
    async set(wire, shape) {
      if (!shapes) throw new BondsocksError('LAB_UNSHAPED', `link ${wire.name} is not shaped in this lab: make one with shaping`)
      await set(wire, shape)
    },
    async carrier({ ends: [, { host, device }] }, up) {
      // A veth has carrier while its peer is up.
      await must(['ip', '-n', namespaceOf(host), 'link', 'set', 'dev', device, up ? 'up' : 'down'])
    },
  }
}

const startTimeoutMs = 20_000

function emulator(folder: string, namespaceOf: NamespaceOf): Shaper {
  const plan = ({ name, ends, shape }: Wire & { shape: Shape }): LinkPlan => {
    const end = ({ host, device }: End) => ({ netns: `/run/netns/${namespaceOf(host)}`, device })
    return { name, ends: [end(ends[0]), end(ends[1])], ...directions(shape) }
  }
  return {
    async make(wires) {
      if (!existsSync('/dev/net/tun')) {
        throw new BondsocksError('NO_TUN', 'there is no /dev/net/tun: load it with `modprobe tun`, or give it to the container')
      }
      const shaped = wires.filter((wire): wire is Wire & { shape: Shape } => wire.shape !== undefined)
      writeFileSync(join(folder, 'links.json'), JSON.stringify(shaped.map(plan)))
      await startLinks(folder)
    },
    remake: (wire) => ask(folder, { make: plan(wire as Wire & { shape: Shape }) }),
    set: ({ name }, shape) => ask(folder, { link: name, ...directions(shape) }),
    carrier: ({ name }, up) => ask(folder, { link: name, carrier: up }),
  }
}

/** The process outlives us: `lab up` returns. */
function startLinks(folder: string): Promise<void> {
  const [file = '', ...args] = nodeArgv('lab/programs/links')
  const child = spawn(file, [...args, folder], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
    cwd: '/',
    // What our caller's Node was told (a test runner's hooks) is none of its business.
    env: { PATH: process.env.PATH },
  })
  return new Promise((resolve, reject) => {
    let text = ''
    const fail = (why: string) => reject(new BondsocksError('LAB_LINKS', `the lab's links cannot be made: ${why}`))
    const timer = setTimeout(() => fail('no answer'), startTimeoutMs)
    const settle = (how: () => void) => {
      clearTimeout(timer)
      child.stdout.destroy()
      child.unref()
      how()
    }
    child.once('error', (error) => settle(() => fail(error.message)))
    child.once('exit', () => settle(() => fail(text.trim() || 'they ended at once')))
    child.stdout.on('data', (data: Buffer) => {
      text += data.toString()
      if (text === 'ready\n') settle(resolve)
    })
  })
}

function ask(folder: string, request: LinkRequest): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = ''
    const name = 'make' in request ? request.make.name : request.link
    const fail = (why: string) =>
      reject(new BondsocksError('LAB_LINKS', `link ${name} cannot be changed: ${why}; \`bondsocks lab down --all\` cleans up`))
    const socket = connect(join(folder, 'links.sock'), () => socket.end(JSON.stringify(request)))
    socket.on('error', (error) => fail(error.message))
    socket.on('data', (data) => {
      text += data.toString()
    })
    socket.on('end', () => (text === '' ? resolve() : fail(text)))
  })
}
