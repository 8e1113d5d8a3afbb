/** What is new after a fact, for people. Without clock or I/O. */
import { type Family, families, formatSocketAddress } from '../../base/address.js'
import type { Event } from '../../telemetry/events.js'
import type { Fact } from '../facts.js'
import { isSameHag } from '../model.js'
import { answersMissing } from '../wans/health.js'
import { admissionOf } from './admissions.js'
import type { HagState } from './hag-states.js'
import { hagFamily, type State } from './state.js'
import type { LinkState } from './wan-links.js'

/** In the order in which the log has always had them. */
export function events(before: State, after: State, fact: Fact): Event[] {
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
    ...(before.roles === after.roles ? [] : ofUse(after)),
    ...changed.flatMap(([former, link]) => ofHealth(former, link, after, fact)),
  ]
}

const linkOf = ({ wan, family }: LinkState, state: State) => ({
  wan,
  family: families.every((one) => hasHag(state, one)) ? family : undefined,
})

const ofUse = ({ roles }: State): Event[] =>
  [...roles.reasons].map(([wan, reason]) => ({ type: 'wan-use', wan, isInUse: roles.inUse.has(wan), reason }))

/** What the path does to packets. */
function ofPath(before: LinkState, after: LinkState, state: State, fact: Fact): Event[] {
  const { mptcp, isNarrow, wan } = after
  if (fact.type === 'full-size-seen' && isNarrow !== before.isNarrow) return [{ type: 'wan-full-size', wan, passes: !isNarrow }]
  const isNews = mptcp.state !== before.mptcp.state && (before.mptcp.state !== 'unknown' || mptcp.state !== 'yes')
  if (fact.type !== 'mptcp-seen' || !isNews) return []
  return [{ type: 'wan-mptcp', ...linkOf(after, state), support: mptcp.state }]
}

function ofHealth(before: LinkState, after: LinkState, state: State, fact: Fact): Event[] {
  const { health } = after
  const link = linkOf(after, state)
  const isMoved = before.address !== undefined && after.address !== undefined && after.address !== before.address
  // If a WAN that is down loses its link, too, that is the better reason.
  const losesLink = before.health.link && !health.link
  const isAnswer = fact.type === 'wan-answered'
  if (health.state !== before.health.state || losesLink || isMoved) {
    const reason = isAnswer ? `a HAG answered in ${Math.round(fact.rttMs)} ms` : health.reason
    // If no HAG has the family, only the WAN's link is known.
    if (!hasHag(state, after.family)) return []
    return [{ type: 'wan-changed', ...link, state: health.state, reason, rttMs: health.rttMs }]
  }
  const missing = answersMissing(health)
  return isAnswer && health.answers === 1 && missing > 0 ? [{ type: 'wan-answers-again', ...link, missing }] : []
}

const hasHag = ({ hags }: State, family: Family) => hags.some(({ hag }) => hagFamily(hag) === family)

function ofHag(before: HagState | undefined, after: HagState): Event[] {
  if (before === undefined) return []
  const { health, isBroken, ipv6 } = after
  const hag = formatSocketAddress(after.hag)
  const all: Event[] = []
  if (health.state !== before.health.state) all.push({ type: 'hag-changed', hag, state: health.state, reason: health.reason })
  if (before.isBroken && !isBroken) all.push({ type: 'hag-answers-requests', hag })
  // What comes back by time alone is just another try, and no news.
  const isMended = before.ipv6?.lacks === true && ipv6?.lacks === false && ipv6.trialMs < before.ipv6.trialMs
  if (isMended) all.push({ type: 'hag-reaches-ipv6', hag })
  return all
}

function ofAdmission(before: State, after: State, fact: Fact): Event[] {
  if (before.admissions === after.admissions || !('path' in fact) || !('hag' in fact)) return []
  const { hag, path } = fact
  const reason = admissionOf(after.admissions, hag, path.bind)?.reason ?? ''
  const isNews = reason !== (admissionOf(before.admissions, hag, path.bind)?.reason ?? '')
  return isNews ? [{ type: 'hag-admission', hag: formatSocketAddress(hag), wan: path.wan, bind: path.bind, reason }] : []
}
