/** Checks every few seconds whether relayed connections are bonded, and says on which WAN they are not. */
import { readFileSync } from 'node:fs'
import type { Engine, Inspection } from '../../engine/contract.js'
import type { Emit, Event } from '../../telemetry/events.js'
import { type Carried, readCounters } from '../interface-counters.js'
import type { Pace } from '../pace.js'
import { agreeingLooks, Bundle, type BundleMember, type Joins, type MemberState } from './bundle.js'

const lookMs = 3000
/** Joins take a round trip or two; a connection with less payload never needed a second subflow. */
const wanted = { max: 64, olderThanMs: 4000, minBytes: 100_000 }

export interface BundleWatchOptions {
  engine: Pick<Engine, 'inspectBusy' | 'stats'>
  pace: Pace
  members(): readonly BundleMember[]
  /** A connection to a HAG, not a direct one. */
  isToHag(connection: Inspection): boolean
  /** What keeps a WAN out whatever is relayed; emitted if it lasts. */
  obstacles(): readonly Event[]
  emit: Emit
  /** Tests pass their own. */
  counters?: () => Map<string, Carried>
  joins?: () => Joins | undefined
  everyMs?: number
}

export class BundleWatch {
  readonly #options: BundleWatchOptions
  readonly #bundle = new Bundle()
  /** How many looks in a row must agree. */
  #obstacles = new Map<string, number>()

  constructor(options: BundleWatchOptions) {
    this.#options = options
  }

  /** As it was found with the last look. */
  get states(): readonly MemberState[] {
    return this.#bundle.states
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const {
      engine,
      pace,
      members,
      isToHag,
      obstacles,
      emit,
      counters = readCounters,
      joins = readJoins,
      everyMs = lookMs,
    } = this.#options
    const alarm = pace.alarm()
    while (!signal.aborted) {
      await alarm.wait(pace.after(everyMs), signal)
      if (signal.aborted) return
      // Without connections nothing is learned; but counters must be read, so that the next look does not count all bytes since.
      const connections = engine.stats().relaying === 0 ? [] : await engine.inspectBusy(wanted)
      const facts = {
        connections: connections.filter(isToHag),
        members: members(),
        carried: counters(),
        joins: joins(),
      }
      for (const event of this.#bundle.look(facts, performance.now())) emit(event)
      const looks = new Map<string, number>()
      for (const event of obstacles()) {
        const key = JSON.stringify(event)
        looks.set(key, (this.#obstacles.get(key) ?? 0) + 1)
        if (looks.get(key) === agreeingLooks) emit(event)
      }
      this.#obstacles = looks
    }
  }
}

/** Of what /proc/net/netstat says; undefined without MPTCP. */
export function parseJoins(netstat: string): Joins | undefined {
  const [names = [], values = []] = netstat
    .split('\n')
    .filter((line) => line.startsWith('MPTcpExt:'))
    .map((line) => line.trim().split(/\s+/))
  const count = (name: string) => (names.includes(name) ? Number(values[names.indexOf(name)]) : undefined)
  const answered = count('MPJoinSynAckRx')
  if (answered === undefined) return undefined
  return { tried: count('MPJoinSynTx'), answered, reset: count('MPRstTx') ?? 0 }
}

function readJoins(): Joins | undefined {
  try {
    return parseJoins(readFileSync('/proc/self/net/netstat', 'utf8'))
  } catch {
    return undefined
  }
}
