/**
 * The proof that connections are bonded: over which WANs do the old and large ones have subflows, and do their bytes leave by the WAN's own
 * interface? Without clock or I/O.
 */

import { type Family, familyOf } from '../../base/address.js'
import type { Inspection } from '../../engine/contract.js'
import type { WanAddresses } from '../../network/state.js'
import type { Lack } from '../../telemetry/events/wans.js'
import type { Event } from '../../telemetry/events.js'
import type { Carried } from '../interface-counters.js'

/** One WAN in one family that connections should use now. */
export interface BundleMember {
  wan: string
  family: Family
  bind: string
  device: string
}

export interface BundleFacts {
  /** Connections to HAGs; all of those that shall count. */
  connections: readonly Inspection[]
  members: readonly BundleMember[]
  /** By interface. */
  carried: ReadonlyMap<string, Carried>
  /** undefined: they cannot be read. */
  joins: Joins | undefined
}

/** How the joins of this namespace have gone so far: counters of the kernel (/proc/net/netstat, MPTcpExt). */
export interface Joins {
  /** SYNs with MP_JOIN; undefined before Linux 6.12. */
  tried: number | undefined
  /** SYN/ACKs that had the option too. */
  answered: number
  /** Subflows that this side has reset with the option MP_TCPRST, as it does where a SYN/ACK comes without MP_JOIN. */
  reset: number
}

export interface MemberState extends BundleMember {
  /** Connections that were looked at, and those of them that have a subflow over it. */
  connections: number
  joined: number
  /** What it lacks, and since when; undefined if nothing. */
  lack: Lack | undefined
  since: number
}

interface Memory {
  /** Looks in a row that agree. */
  lack: Lack | undefined
  looks: number
  since: number
  said: Lack | undefined
  saidAt: number
}

/** How many looks in a row must agree, for better or worse: longer than a join takes, or a WAN's coming or going. */
export const agreeingLooks = 3
/** Time between two lines about one WAN, because the trouble may come and go, and its cause may change. */
const restMs = 60_000
/** Payload that must have moved between two looks before an interface is blamed. */
const provenBytes = 300_000
/** The share of the subflows' bytes that an interface must have seen. */
const seenShare = 0.5
/** Changes of the counters of joins that are kept: minutes of a busy home. */
const maxJoinSamples = 100

const keyOf = ({ wan, family }: BundleMember) => `${wan} ${family}`

export class Bundle {
  #memories = new Map<string, Memory>()
  #subflows = new Map<string, number>()
  #carried: ReadonlyMap<string, Carried> = new Map()
  /** Oldest first, one for each change. */
  #joins: (Joins & { at: number })[] = []
  #states: readonly MemberState[] = []

  /** As it was found with the last look. */
  get states(): readonly MemberState[] {
    return this.#states
  }

  /** To be called every few seconds while connections are relayed. What is news. */
  look(facts: BundleFacts, now: number): Event[] {
    const astray = this.#astray(facts)
    this.#recordJoins(facts.joins, now)
    const news: Event[] = []
    const families = new Set(facts.members.map(({ family }) => family))
    this.#states = facts.members.map((member) => {
      const mine = facts.connections.filter(({ remote }) => familyOf(remote.address) === member.family)
      const joined = mine.filter((one) => hasJoined(one, member.bind)).length
      const isAlone = facts.members.filter(({ family }) => family === member.family).length < 2
      const lack = astray.has(keyOf(member)) ? 'other-device' : isAlone ? undefined : this.#lackOf(mine, joined, member, now)
      const memory = this.#agree(keyOf(member), lack, now)
      const state = { ...member, connections: mine.length, joined, lack: memory.said, since: memory.since }
      // If a WAN has no connections, nothing new is known about it.
      if (mine.length === 0 || memory.looks < agreeingLooks || memory.lack === memory.said) return state
      if (now - memory.saidAt < restMs) return state
      const family = families.size > 1 ? member.family : undefined
      news.push({ ...member, type: 'wan-bundle', family, connections: mine.length, joined, lack: memory.lack })
      memory.said = memory.lack
      memory.since = memory.saidAt = now
      return { ...state, lack: memory.lack, since: now }
    })
    const keys = new Set(facts.members.map(keyOf))
    for (const key of this.#memories.keys()) if (!keys.has(key)) this.#memories.delete(key)
    return news
  }

  #agree(key: string, lack: Lack | undefined, now: number): Memory {
    const memory = this.#memories.get(key) ?? {
      lack: undefined,
      looks: 0,
      since: now,
      said: undefined,
      saidAt: Number.NEGATIVE_INFINITY,
    }
    this.#memories.set(key, memory)
    const isSame = (memory.lack === undefined) === (lack === undefined)
    memory.looks = isSame ? memory.looks + 1 : 1
    // What is better known of a cause later is not said again.
    if (!isSame || memory.said === undefined) memory.lack = lack
    return memory
  }

  #lackOf(connections: readonly Inspection[], joined: number, { bind }: BundleMember, now: number): Lack | undefined {
    // Less than half may be those of a bad moment, and are joined anew (rejoin.ts).
    if (connections.length === 0 || joined * 2 > connections.length) return undefined
    const without = connections.filter((one) => !hasJoined(one, bind))
    const mostly = (test: (one: Inspection) => boolean) => without.filter(test).length * 2 > without.length
    if (mostly(({ protocol }) => protocol === 'tcp')) return 'fell-back'
    const isJoining = ({ subflows }: Inspection) => subflows.some((one) => one.joining && one.local.address === bind)
    if (mostly(isJoining)) return 'not-answered'
    if (mostly(({ full }) => full)) return 'limit-reached'
    // Of the youngest, so that as few others as can be are counted with it.
    const joins = this.#joinsSince(now - Math.min(...without.map(({ ageMs }) => ageMs)))
    return joins === undefined ? 'unknown' : lackByCounters(joins)
  }

  #recordJoins(joins: Joins | undefined, now: number): void {
    const last = this.#joins.at(-1)
    if (joins === undefined) this.#joins = []
    else if (last?.tried !== joins.tried || last?.answered !== joins.answered || last.reset !== joins.reset)
      this.#joins.push({ ...joins, at: now })
    if (this.#joins.length > maxJoinSamples) this.#joins.shift()
  }

  #joinsSince(at: number): Joins | undefined {
    const before = this.#joins.findLast((sample) => sample.at <= at)
    const last = this.#joins.at(-1)
    return before && last && joinsBetween(before, last)
  }

  /** Those whose subflows move bytes that their interface does not see. */
  #astray({ connections, members, carried }: BundleFacts): Set<string> {
    const moved = new Map<string, number>()
    const now = new Map<string, number>()
    for (const { connection, subflows } of connections) {
      for (const { local, remote, bytesSent, bytesReceived } of subflows) {
        const id = `${connection} ${local.address} ${local.port} ${remote.address} ${remote.port}`
        now.set(id, bytesSent + bytesReceived)
        const before = this.#subflows.get(id)
        if (before === undefined) continue
        moved.set(local.address, (moved.get(local.address) ?? 0) + bytesSent + bytesReceived - before)
      }
    }
    const before = this.#carried
    this.#subflows = now
    this.#carried = carried
    return new Set(
      members
        .filter(({ bind, device }) => {
          const [then, seen] = [before.get(device), carried.get(device)]
          const bytes = moved.get(bind) ?? 0
          if (bytes < provenBytes || then === undefined || seen === undefined) return false
          return seen.received - then.received + seen.sent - then.sent < seenShare * bytes
        })
        .map(keyOf),
    )
  }
}

export const joinsBetween = (before: Joins, after: Joins): Joins => ({
  tried: after.tried === undefined ? undefined : after.tried - (before.tried ?? 0),
  answered: after.answered - before.answered,
  reset: after.reset - before.reset,
})

/** What became of the joins since a connection began that lacks a WAN. Those of other WANs and connections are among them. */
export function lackByCounters({ tried, answered, reset }: Joins): Lack {
  if (tried === 0) return 'not-tried'
  // On an older kernel it is known of one that it was tried.
  const isUnanswered = (tried ?? 1) > answered
  if (reset > 0) return isUnanswered ? 'stripped' : 'closed'
  if (tried === undefined) return 'unknown'
  return isUnanswered ? 'reset' : 'closed'
}

export const hasJoined = ({ subflows, protocol, local }: Inspection, bind: string) =>
  subflows.some((one) => !one.joining && one.local.address === bind) || (protocol === 'tcp' && local.address === bind)

/** Of WANs that have an address, those that connections to HAGs cannot use. `hagFamilies`: those of the HAGs, the one in use first. */
export function withoutHag(wans: readonly WanAddresses[], [inUse, other]: readonly Family[]): Event[] {
  if (inUse === undefined) return []
  const rest = inUse === 4 ? 6 : 4
  return wans
    .filter((wan) => wan[`address${inUse}`] === undefined && wan[`address${rest}`] !== undefined)
    .map(({ name }) => ({ type: 'wan-without-hag', wan: name, lacks: inUse, isOutnumbered: other !== undefined }))
}
