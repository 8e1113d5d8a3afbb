/** What is new after a fact, and how the log says it. Without clock or I/O. */
import { type Family, families, formatSocketAddress } from '../../base/address.js'
import type { Fact } from '../facts.js'
import { whereOf } from '../hag-troubles.js'
import { type Hag, isSameHag, type PathAddress, type WanState } from '../model.js'
import { answersMissing } from '../wans/health.js'
import { admissionOf } from './admissions.js'
import type { HagState } from './hag-states.js'
import { familyOf, type State } from './state.js'
import type { LinkState, MptcpSupport } from './wan-links.js'

/** `wan`: its name, with the family if HAGs have addresses of both. */
export type SteeringEvent =
  | { type: 'wan-changed'; wan: string; state: WanState; reason: string; rttMs: number | undefined }
  | { type: 'wan-answers-again'; wan: string; missing: number }
  | { type: 'wan-mptcp'; wan: string; support: MptcpSupport['state'] }
  | { type: 'wan-full-size'; wan: string; passes: boolean }
  | { type: 'hag-changed'; hag: Hag; state: HagState['health']['state']; reason: string }
  | { type: 'hag-answers-requests'; hag: Hag }
  /** `reason`: why it refuses us over the WAN; undefined: it serves us there again. */
  | { type: 'hag-admission'; hag: Hag; path: PathAddress; reason: string }
  | { type: 'hag-reaches-ipv6'; hag: Hag }
  /** Which WANs are in use, or why they stay so. */
  | { type: 'roles'; text: string }

/** In the order in which the log has always had them. */
export function events(before: State, after: State, fact: Fact): SteeringEvent[] {
  if (before === after) return []
  const changed = after.links.flatMap((link, index) => {
    const former = before.links[index]
    return former === undefined || former === link ? [] : [[former, link] as const]
  })
  return [
    ...after.hags.flatMap((one) =>
      ofHag(
        before.hags.find(({ hag }) => isSameHag(hag, one.hag)),
        one,
      ),
    ),
    ...ofAdmission(before, after, fact),
    ...changed.flatMap(([former, link]) => ofPath(former, link, after, fact)),
    ...(before.roles === after.roles ? [] : [...after.roles.reasons.values()].map((text) => ({ type: 'roles', text }) as const)),
    ...changed.flatMap(([former, link]) => ofHealth(former, link, after, fact)),
  ]
}

const nameOf = ({ wan, family }: LinkState, state: State) =>
  families.every((one) => hasHag(state, one)) ? `${wan} (IPv${family})` : wan

/** What the path does to packets. */
function ofPath(before: LinkState, after: LinkState, state: State, fact: Fact): SteeringEvent[] {
  const { mptcp, isNarrow, wan } = after
  if (fact.type === 'full-size-seen' && isNarrow !== before.isNarrow) return [{ type: 'wan-full-size', wan, passes: !isNarrow }]
  const isNews = mptcp.state !== before.mptcp.state && (before.mptcp.state !== 'unknown' || mptcp.state !== 'yes')
  if (fact.type !== 'mptcp-seen' || !isNews) return []
  return [{ type: 'wan-mptcp', wan: nameOf(after, state), support: mptcp.state }]
}

function ofHealth(before: LinkState, after: LinkState, state: State, fact: Fact): SteeringEvent[] {
  const { health } = after
  const wan = nameOf(after, state)
  const isMoved = before.address !== undefined && after.address !== undefined && after.address !== before.address
  // If a WAN that is down loses its link, too, that is the better reason.
  const losesLink = before.health.link && !health.link
  const isAnswer = fact.type === 'wan-answered'
  if (health.state !== before.health.state || losesLink || isMoved) {
    const reason = isAnswer ? `a HAG answered in ${Math.round(fact.rttMs)} ms` : health.reason
    // If no HAG has the family, only the WAN's link is known.
    if (!hasHag(state, after.family)) return []
    return [{ type: 'wan-changed', wan, state: health.state, reason, rttMs: health.rttMs }]
  }
  const missing = answersMissing(health)
  return isAnswer && health.answers === 1 && missing > 0 ? [{ type: 'wan-answers-again', wan, missing }] : []
}

const hasHag = ({ hags }: State, family: Family) => hags.some(({ hag }) => familyOf(hag) === family)

function ofHag(before: HagState | undefined, { hag, health, isBroken, ipv6 }: HagState): SteeringEvent[] {
  if (before === undefined) return []
  const all: SteeringEvent[] = []
  if (health.state !== before.health.state) all.push({ type: 'hag-changed', hag, state: health.state, reason: health.reason })
  if (before.isBroken && !isBroken) all.push({ type: 'hag-answers-requests', hag })
  // What comes back by time alone is just another try, and no news.
  const isMended = before.ipv6?.lacks === true && ipv6?.lacks === false && ipv6.trialMs < before.ipv6.trialMs
  if (isMended) all.push({ type: 'hag-reaches-ipv6', hag })
  return all
}

function ofAdmission(before: State, after: State, fact: Fact): SteeringEvent[] {
  if (before.admissions === after.admissions || !('path' in fact) || !('hag' in fact)) return []
  const { hag, path } = fact
  const reason = admissionOf(after.admissions, hag, path.bind)?.reason ?? ''
  const isNews = reason !== (admissionOf(before.admissions, hag, path.bind)?.reason ?? '')
  return isNews ? [{ type: 'hag-admission', hag, path, reason }] : []
}

export interface Line {
  readonly level: 'info' | 'warn'
  readonly text: string
  readonly fields?: { readonly rttMs: number }
}

export function lineOf(event: SteeringEvent): Line {
  const info = (text: string): Line => ({ level: 'info', text })
  const warn = (text: string): Line => ({ level: 'warn', text })
  switch (event.type) {
    case 'wan-changed': {
      const { wan, state, reason, rttMs } = event
      const line = { level: state === 'down' ? 'warn' : 'info', text: `WAN ${wan} is ${state}: ${reason}` } as const
      return rttMs === undefined ? line : { ...line, fields: { rttMs: Math.round(rttMs) } }
    }
    case 'wan-answers-again':
      return info(`WAN ${event.wan} answers again: it is used after ${event.missing} more, because it fell lately`)
    case 'wan-mptcp': {
      if (event.support === 'yes') return info(`WAN ${event.wan} carries MPTCP again`)
      const what = event.support === 'blocked' ? 'drops it' : 'removes it'
      return warn(`WAN ${event.wan} carries no MPTCP, something on its path ${what}: what begins there is not bonded`)
    }
    case 'wan-full-size':
      if (event.passes) return info(`WAN ${event.wan} carries full-size packets again`)
      return warn(
        `WAN ${event.wan} is down: full-size packets vanish on its path, small ones pass: lower its MTU (ip link set dev IFACE mtu 1400, say); until then it is used only where no other WAN works`,
      )
    case 'hag-changed': {
      const name = `HAG ${formatSocketAddress(event.hag)}`
      if (event.state === 'down') return warn(`${name} is down: ${event.reason}`)
      return info(event.state === 'returning' ? `${name} answers again` : `${name} is up`)
    }
    case 'hag-answers-requests':
      return info(`HAG ${formatSocketAddress(event.hag)} answers requests again`)
    case 'hag-admission': {
      const { hag, path, reason } = event
      const [name, where] = [formatSocketAddress(hag), whereOf(path)]
      if (reason === '') return info(`HAG ${name} serves us over WAN ${where}`)
      return warn(`HAG ${name} refuses us over WAN ${where}: ${reason}`)
    }
    case 'hag-reaches-ipv6':
      return info(`HAG ${formatSocketAddress(event.hag)} reaches IPv6 destinations again`)
    case 'roles':
      return info(event.text)
  }
}
