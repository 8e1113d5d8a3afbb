/** Makes a lab's shaped wires: netem on a veth if the kernel has it, otherwise our link emulator. */
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
  /** Makes the devices of a wire again whose first end was removed. */
  remake(wire: Wire): Promise<void>
  set(wire: Wire, shape: Shape): Promise<void>
  /** Plugs the cable at the first end in, or pulls it. */
  carrier(wire: Wire, up: boolean): Promise<void>
}

export type NamespaceOf = (host: string) => string

/** Tries netem in a namespace that nothing uses yet. */
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
/** The Ethernet frame of a full packet. */
const frameBytes = 1514

function directions(shape: Shape): { up: LinkDirection; down: LinkDirection } {
  const direction = (rate: number, loss: number): LinkDirection => ({
    rate: rate * mbit,
    delayUs: shape.delayMs * 1000,
    // At least a few packets, also at slow rates.
    queueBytes: Math.max(4 * frameBytes, (rate * mbit * shape.queueMs) / 8000),
    loss,
  })
  return { up: direction(shape.rateUp, shape.lossUp), down: direction(shape.rateDown, shape.lossDown) }
}

/** If a timer is late, what the line would have carried meanwhile passes at once. */
const burstMs = 4
/** Means no limit. */
const fastest = 100e9
const farTooMuch = 1e9

/**
 * netem delays and loses packets. The rate is limited by a tbf behind it, with a queue of its own, because netem's queue counts packets of
 * any size, also those on their way. And unlike netem's, a full queue of tbf tells the sending socket nothing, as on a real line.
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
    // With segmentation offload, a segment of 64 KB would pass the line as one packet.
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
      // A veth has carrier only while its peer is up.
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

/** The process outlives this one, because `lab up` returns. */
function startLinks(folder: string): Promise<void> {
  const [file = '', ...args] = nodeArgv('lab/programs/links')
  const child = spawn(file, [...args, folder], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
    cwd: '/',
    // Without the environment of our Node, such as a test runner's hooks.
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
