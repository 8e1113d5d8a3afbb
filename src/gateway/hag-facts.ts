/** Turns the result of a HAG's probe into a fact, whoever sent it. */
import type { Engine, ProbeResult } from '../engine/contract.js'
import type { Fact } from './facts.js'
import { troubleOf, whereOf } from './hag-troubles.js'
import type { Hag, PathAddress, WanLink } from './model.js'
import { isBehindFullWan } from './subflow-signs.js'

/** A HAG counts as behind a full WAN if its connections over it were acknowledged within so long. */
const acknowledgedMs = 1000

export interface Probed {
  readonly hag: Hag
  readonly path: PathAddress
  readonly result: ProbeResult
  readonly askedAt: number
  /** It waited long enough even for a full up-link. */
  readonly isPatient: boolean
}

export interface HagFactsOptions {
  readonly engine: Pick<Engine, 'inspect'>
  /** Best first. */
  readonly linksTo: (hag: Hag) => readonly WanLink[]
  readonly isDown: (hag: Hag) => boolean
  readonly report: (fact: Fact) => void
}

/** Reports it at once; if a full WAN may be the reason of a silence, after that was found out. */
export async function reportProbe(
  { hag, path, result, askedAt, isPatient }: Probed,
  { engine, linksTo, isDown, report }: HagFactsOptions,
): Promise<void> {
  if (result.ok) return report({ type: 'hag-answered', hag, path })
  const { code } = result.failure
  if (code === 'NOT_A_CLIENT') return report({ type: 'hag-turned-away', hag, path, how: 'stranger' })
  if (code === 'ECONNREFUSED') return report({ type: 'hag-refused', hag })
  // The reason is on our side: no address, no route.
  if (code === 'EADDRNOTAVAIL' || code === 'ENETUNREACH' || code === 'EINVAL') return report({ type: 'hag-not-asked', hag })
  const hasConnected = result.stage !== 'connect'
  // The reason may be a rule about our address.
  const where = hasConnected && code === 'ECONNRESET' ? ` over ${whereOf(path)}` : ''
  const hasTimedOut = code === 'ETIMEDOUT'
  const silentAt = performance.now()
  const reason = `${troubleOf(hag, result)}${where}`
  const mayBeFull = hasTimedOut && !isPatient && !isDown(hag)
  const isFull = mayBeFull && (await isBehindFullWan(engine, hag, linksTo(hag), acknowledgedMs))
  report({ type: 'hag-silent', hag, reason, askedAt, silentAt, hasConnected, hasTimedOut, isPatient, isBehindFullWan: isFull })
}
