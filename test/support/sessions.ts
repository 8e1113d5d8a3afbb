/** Sessions of a gateway with two HAGs and two WANs, on the engine without sockets. */
import { type Cidr, parseCidr } from '../../src/base/address.js'
import type { DialSpec } from '../../src/engine/contract.js'
import { PathTable } from '../../src/gateway/connections/path-table.js'
import { Bypass } from '../../src/gateway/connections/policy.js'
import { Sessions } from '../../src/gateway/connections/session.js'
import type { LogLevel } from '../../src/telemetry/log.js'
import { FakeEngine } from './fake-engine.js'
import type { FarSide } from './far-side.js'
import { memoryLog } from './memory-log.js'
import { pathsOf } from './steering.js'

export const first = { address: '203.0.113.3', port: 1080, username: 'me', password: 'pw' }
export const second = { address: '203.0.113.4', port: 1080 }

export function gateway(
  far: FarSide,
  options: { onHagDown?: 'direct' | 'reject'; hags?: (typeof second)[]; level?: LogLevel } = {},
) {
  const log = memoryLog(options.level)
  const clock = { now: 1000 }
  const engine: FakeEngine = new FakeEngine({ onEvents: (events) => events.map((event) => sessions.handle(event)) }, far)
  const { onHagDown = 'direct', hags = [first, second] } = options
  const pathTable = new PathTable({ onHagDown, now: () => clock.now })
  pathTable.use(pathsOf({ hags, onHagDown }))
  const suspicions: string[] = []
  const bypass = new Bypass({ bypass: [parseCidr('192.0.2.0/24') as Cidr] })
  const sessions: Sessions = new Sessions({
    engine,
    pathTable,
    bypass,
    connectTimeoutMs: 3000,
    report: (fact) => fact.type === 'hag-trouble' && suspicions.push(`${fact.hag.address} ${fact.about}`),
    log,
  })
  /** `remote via bind` of every attempt since the last call. */
  const tried = () => engine.opens.splice(0).map(({ spec }) => `${spec.remote.address} via ${spec.bind}`)
  return { engine, sessions, pathTable, log, clock, tried, suspicions }
}

export const everyPath = [
  '203.0.113.3 via 10.1.0.2',
  '203.0.113.3 via 10.2.0.2',
  '203.0.113.4 via 10.1.0.2',
  '203.0.113.4 via 10.2.0.2',
  '198.51.100.7 via 10.1.0.2',
  '198.51.100.7 via 10.2.0.2',
]
export const isHag = (spec: DialSpec) => spec.socks !== undefined
