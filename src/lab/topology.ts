/** What a lab consists of, as data: hosts, wires between them, addresses and routes. No I/O. */
import { BondsocksError } from '../base/errors.js'

export const topologies = ['hybrid', 'ethernet', 'two-routers'] as const
export type Topology = (typeof topologies)[number]

/** How a wire delays and limits what it carries. Down is towards the CPE (or the client). */
export interface Shape {
  /** Mbit/s on the line, counted as in LinkDirection; 0 is unlimited. */
  rateDown: number
  rateUp: number
  /** One way. */
  delayMs: number
  /** How long a full queue takes to drain at the line's rate. */
  queueMs: number
  /** Probability, 0 to 1. */
  lossDown: number
  lossUp: number
}

export interface End {
  host: string
  device: string
  /** With prefix lengths. */
  addresses: string[]
}

/** Two devices; the first end is the one nearer to the client. */
export interface Wire {
  name: string
  ends: [End, End]
  /** Default: as fast as the machine. */
  shape?: Shape
}

export interface Addresses {
  lan: string
  lan6: string
  cpe: string
  cpe6: string
  hag: string
  hag6: string
  /** A second HAG. */
  hag2: string
  hag2v6: string
  server: string
  server6: string
}

export interface Plan {
  hosts: string[]
  /** The host with all the shaped wires: the CPE, or else the client. */
  edge: string
  wires: Wire[]
  /** By host: addresses of its `lo`. */
  loopbacks: Record<string, string[]>
  /** By host: the words behind `ip route add`, in order. */
  routes: Record<string, string[]>
  routers: string[]
  /** Devices of the edge with MASQUERADE. */
  masquerade: string[]
  /** Empty if there is no such host. */
  addresses: Addresses
  /** Texts of the config files by name. */
  configs: Record<string, string>
}

interface Wan {
  name: string
  shape: Pick<Shape, 'rateDown' | 'rateUp' | 'delayMs'>
}

const shape = (line: Wan['shape']): Shape => ({ ...line, queueMs: 100, lossDown: 0, lossUp: 0 })

const hag2 = '203.0.113.4'
const hag2v6 = '2001:db8:b::4'
const hagConfig = (address: string) => `listen:\n  address: ${address}\n  port: 1080\nclients: [10.0.0.0/8]\n`

/** LAN client, gateway with WANs, HAG at their other end, server and a second HAG behind it. The CPE's main table prefers the first WAN, as gateways do. */
function hybridAccess(wans: Wan[], hag: string, hag6: string): Plan {
  const lines = wans.map(({ name, shape: line }, index) => ({
    name,
    shape: shape(line),
    subnet: `10.${index + 1}.0`,
    subnet6: `fd00:${index + 1}:`,
  }))
  const wanLines = lines.map(({ name, subnet }) => `  - name: ${name}\n    interface: ${name}\n    gateway: ${subnet}.1\n`)
  const gateway = (hags: string[]) =>
    `lan:\n  interfaces: [br0]\nwans:\n${wanLines.join('')}hags:\n${hags.map((address) => `  - address: ${address}\n    port: 1080\n`).join('')}`
  return {
    hosts: ['lan', 'cpe', 'hag', 'hag2', 'server'],
    edge: 'cpe',
    wires: [
      {
        name: 'lan',
        ends: [
          { host: 'lan', device: 'eth0', addresses: ['192.168.1.2/24', 'fd00::2/64'] },
          { host: 'cpe', device: 'br0', addresses: ['192.168.1.1/24', 'fd00::1/64'] },
        ],
      },
      ...lines.map(
        ({ name, shape, subnet, subnet6 }): Wire => ({
          name,
          shape,
          ends: [
            { host: 'cpe', device: name, addresses: [`${subnet}.2/24`, `${subnet6}:2/64`] },
            { host: 'hag', device: name, addresses: [`${subnet}.1/24`, `${subnet6}:1/64`] },
          ],
        }),
      ),
      {
        name: 'hag2',
        ends: [
          { host: 'hag', device: 'hag2', addresses: ['203.0.113.5/31', '2001:db8:b::1/64'] },
          { host: 'hag2', device: 'eth0', addresses: [`${hag2}/31`, `${hag2v6}/64`] },
        ],
      },
      {
        name: 'server',
        ends: [
          { host: 'hag', device: 'internet', addresses: ['198.51.100.1/24', '2001:db8:5::1/64'] },
          { host: 'server', device: 'eth0', addresses: ['198.51.100.2/24', '2001:db8:5::2/64'] },
        ],
      },
    ],
    loopbacks: { hag: [`${hag}/32`, `${hag6}/128`] },
    routes: {
      lan: ['default via 192.168.1.1', 'default via fd00::1'],
      cpe: lines.flatMap(({ name, subnet, subnet6 }, index) =>
        [`${subnet}.1`, `${subnet6}:1`].map((gateway) => `default via ${gateway} dev ${name} metric ${100 * (index + 1)}`),
      ),
      hag2: ['default via 203.0.113.5', 'default via 2001:db8:b::1'],
      server: ['default via 198.51.100.1', 'default via 2001:db8:5::1'],
    },
    routers: ['cpe', 'hag'],
    masquerade: lines.map(({ name }) => name),
    addresses: {
      lan: '192.168.1.2',
      lan6: 'fd00::2',
      cpe: '192.168.1.1',
      cpe6: 'fd00::1',
      hag,
      hag6,
      hag2,
      hag2v6,
      server: '198.51.100.2',
      server6: '2001:db8:5::2',
    },
    configs: {
      'gateway.yaml': gateway([hag]),
      'gateway-two-hags.yaml': gateway([hag, hag2]),
      'gateway-learned.yaml': gateway([hag]).replace(/^ +gateway: .*\n/gm, ''),
      'hag.yaml': hagConfig(hag),
      'hag2.yaml': hagConfig(hag2),
    },
  }
}

/** Client and server with two addresses each, and a router between each pair: 15 Mbit/s in sum, plain MPTCP from end to end. */
function twoRouters(): Plan {
  const paths = [
    { name: 'r1', device: 'eth0', near: '10.0.0', far: '10.0.1' },
    { name: 'r2', device: 'eth1', near: '192.168.0', far: '192.168.1' },
  ]
  return {
    hosts: ['client', 'r1', 'r2', 'server'],
    edge: 'client',
    wires: paths.flatMap(({ name, device, near, far }): Wire[] => [
      {
        name,
        shape: shape({ rateDown: 7.5, rateUp: 7.5, delayMs: 5 }),
        ends: [
          { host: 'client', device, addresses: [`${near}.1/24`] },
          { host: name, device: 'client', addresses: [`${near}.254/24`] },
        ],
      },
      {
        name: `${name}-server`,
        ends: [
          { host: name, device: 'server', addresses: [`${far}.254/24`] },
          { host: 'server', device, addresses: [`${far}.2/24`] },
        ],
      },
    ]),
    loopbacks: {},
    routes: {
      client: paths.map(({ near, far }) => `${far}.0/24 via ${near}.254`),
      server: paths.map(({ near, far }) => `${near}.0/24 via ${far}.254`),
    },
    routers: ['r1', 'r2'],
    masquerade: [],
    addresses: {
      lan: '10.0.0.1',
      lan6: '',
      cpe: '',
      cpe6: '',
      hag: '',
      hag6: '',
      hag2: '',
      hag2v6: '',
      server: '10.0.1.2',
      server6: '',
    },
    configs: {},
  }
}

/** `slow` divides all rates. */
export function planOf(topology: Topology, slow = 1): Plan {
  const plan = atFullRates(topology)
  const slowed = (shape: Shape): Shape => ({ ...shape, rateDown: shape.rateDown / slow, rateUp: shape.rateUp / slow })
  return { ...plan, wires: plan.wires.map((wire) => (wire.shape === undefined ? wire : { ...wire, shape: slowed(wire.shape) })) }
}

function atFullRates(topology: Topology): Plan {
  switch (topology) {
    case 'hybrid':
      return hybridAccess(
        [
          { name: 'dsl', shape: { rateDown: 20, rateUp: 5, delayMs: 15 } },
          { name: 'lte', shape: { rateDown: 30, rateUp: 10, delayMs: 35 } },
        ],
        '203.0.113.3',
        '2001:db8:a::3',
      )
    case 'ethernet':
      return hybridAccess(
        [
          { name: 'eth1', shape: { rateDown: 10, rateUp: 10, delayMs: 0.5 } },
          { name: 'eth2', shape: { rateDown: 100, rateUp: 100, delayMs: 0.5 } },
        ],
        '4.4.4.4',
        '2001:db8:4::4',
      )
    case 'two-routers':
      return twoRouters()
  }
}

/** Throws a usage error that names the topologies. */
export function parseTopology(text: string): Topology {
  const found = topologies.find((one) => one === text)
  if (found !== undefined) return found
  throw new BondsocksError('USAGE', `there is no topology ${text}: take one of ${topologies.join(', ')}`, { exitCode: 2 })
}
