/**
 * Everything that the gateway knows, as one immutable value, and how each fact changes it. Without clock or I/O: `now` is milliseconds of a
 * clock that never jumps.
 */
import { type Family, families, familyOfAddress } from '../../base/address.js'
import type { WanAddresses } from '../../network/state.js'
import type { Fact, Rates } from '../facts.js'
import { turnedAwayBecause } from '../hag-troubles.js'
import { type ByFamily, byFamily, type Hag, isSameHag, isUsable, type PathAddress, type WanLink } from '../model.js'
import { initial, select } from '../roles/roles.js'
import { type Role, roleOf, type Selection } from '../roles/selection.js'
import * as admission from './admissions.js'
import { type HagState, hagsThere, withDirectAnswer, withHagFact, withHags, withoutCheck, withTrouble } from './hag-states.js'
import { withIpv6Refusal, withIpv6Time } from './ipv6.js'
import { firstLinks, type LinkState, linksOf, withFallback, withWanFact, withWans } from './wan-links.js'

export interface SteeringConfig {
  readonly wans: readonly { readonly name: string; readonly interface: string; readonly metered: boolean; readonly role: Role }[]
  readonly onHagDown: 'direct' | 'reject'
}

export interface State {
  readonly config: SteeringConfig
  readonly startedAt: number
  /** WANs that have a link and an address. */
  readonly wans: readonly WanAddresses[]
  /** Addresses whose link is gone, or that were deleted, since the last pass of the network set-up. */
  readonly gone: ReadonlySet<string>
  readonly links: readonly LinkState[]
  /** Best first, without regard to their families. */
  readonly hags: readonly HagState[]
  readonly admissions: admission.Admissions
  /** Which WANs are in use by role, volume and rate. */
  readonly roles: Selection
  readonly rates: ReadonlyMap<string, Rates>
  /** WANs whose monthly volume is used up. */
  readonly exhausted: ReadonlySet<string>
  readonly sampledAt: number
  /** While no HAG answers over any WAN: the WAN over which direct connections were answered, and how often in a row. */
  readonly direct: ByFamily<{ readonly wan: string; readonly times: number } | undefined>
  /** The address whose endpoint is to be made again: the next pass deletes it, the one after adds it. */
  readonly remaking: string | undefined
}

/** By then the first probes have answers. Until then a WAN that is not known to be lost counts as usable, or a backup would take over. */
const firstProbesMs = 3000
/** One lost SYN sends a connection another way. */
export const directAnswersToTrust = 3
const noRates: Rates = { receivedPerSecond: 0, sentPerSecond: 0 }
const lacking = 'the network set-up has no way over it'

export function firstState(config: SteeringConfig, now: number): State {
  return {
    config,
    startedAt: now,
    wans: [],
    gone: new Set(),
    links: firstLinks(config.wans),
    hags: [],
    admissions: new Map(),
    roles: initial(config.wans.map(({ name }) => name)),
    rates: new Map(),
    exhausted: new Set(),
    sampledAt: now,
    direct: { 4: undefined, 6: undefined },
    remaking: undefined,
  }
}

export function reduce(before: State, fact: Fact, now: number): State {
  const after = apply(before, fact, now)
  if (after === before) return before
  const links = byFamily((family) => wanLinks(after, family))
  const direct = byFamily((family) => (links[family].some(isUsable) ? undefined : after.direct[family]))
  return withRoles({ ...after, direct }, links, now)
}

function apply(state: State, fact: Fact, now: number): State {
  switch (fact.type) {
    case 'wan-answered':
    case 'wan-silent':
    case 'mptcp-seen':
    case 'full-size-seen':
      return { ...state, links: withWanFact(state.links, fact, now) }
    case 'mptcp-fell-back': {
      const links = withFallback(state.links, fact.bind)
      return links === state.links ? state : { ...state, links }
    }
    case 'wans-planned':
      return { ...state, wans: fact.wans, gone: new Set(), links: withWans(state.links, fact.wans, lacking, now) }
    case 'link-gone': {
      const isGone = (wan: WanAddresses) => wan.interface === fact.interface
      return withoutWans(state, isGone, `interface ${fact.interface} ${fact.what}`, now)
    }
    case 'address-gone': {
      const isGone = (wan: WanAddresses) => wan.address4 === fact.address || wan.address6 === fact.address
      return withoutWans(state, isGone, `its address ${fact.address} was deleted`, now)
    }
    case 'hags-changed': {
      const hags = withHags(state.hags, fact.hags)
      return {
        ...state,
        hags,
        admissions: admission.keepHags(
          state.admissions,
          hags.map(({ hag }) => hag),
        ),
      }
    }
    case 'rates-sampled':
      return { ...state, rates: fact.rates, exhausted: fact.exhausted, sampledAt: now }
    case 'endpoint-to-remake':
      return { ...state, remaking: fact.bind }
    case 'endpoint-removed':
      return state.remaking === fact.bind ? { ...state, remaking: undefined } : state
    case 'direct-answered':
      return withDirect(state, fact.path, now)
    case 'tick':
      return withTime(state, now)
    default:
      return withReturn(state, withHagNews(state, fact, now), fact.hag)
  }
}

/** A HAG that was down and answers again may have been restarted with another config. */
function withReturn(before: State, after: State, hag: Hag): State {
  const isReturning = ({ hags }: State) => hags.some((one) => isSameHag(one.hag, hag) && one.health.state === 'returning')
  if (before.hags === after.hags || isReturning(before) || !isReturning(after)) return after
  return { ...after, admissions: admission.askAgain(after.admissions, hag) }
}

type HagNews = Extract<Fact, { hag: Hag }>

function withHagNews(state: State, fact: HagNews, now: number): State {
  const { hag } = fact
  if (!state.hags.some((one) => isSameHag(one.hag, hag))) return state
  const all = state.admissions
  const admissions = (next: admission.Admissions) => (next === all ? state : { ...state, admissions: next })
  const change = (to: (one: HagState) => HagState) => {
    const hags = state.hags.map((one) => (isSameHag(one.hag, hag) ? to(one) : one))
    return hags.every((one, index) => one === state.hags[index]) ? state : { ...state, hags }
  }
  switch (fact.type) {
    case 'request-refused':
      return admissions(admission.userRefused(all, hag, fact.path.bind))
    case 'users-served':
      return admissions(admission.userAsked(all, hag, fact.path.bind, fact.isAnyServed, now))
    case 'hag-trouble':
      return change((one) => withTrouble(one, fact.about, now))
    case 'ipv6-unreachable':
      return change((one) => ({ ...one, ipv6: withIpv6Refusal(one.ipv6, fact.destination) }))
    case 'admission-asked':
      return admissions(admission.asked(all, hag, fact.bind, now))
    case 'hag-request-unknown': {
      const [link] = linksByCost(state, hag)
      return link === undefined ? state : change((one) => withoutCheck(one, link.metered, now))
    }
    case 'hag-answered':
      return { ...admissions(admission.greeted(all, hag, fact.path.bind)), hags: withHagFact(state.hags, fact, now) }
    case 'hag-turned-away': {
      const next = admission.turnedAway(all, hag, fact.path.bind, turnedAwayBecause[fact.how], now)
      return { ...admissions(next), hags: withHagFact(state.hags, fact, now) }
    }
    case 'hag-request-answered': {
      const next = admission.answered(all, hag, fact.path.bind, fact.isRefused, now)
      return { ...admissions(next), hags: withHagFact(state.hags, fact, now) }
    }
  }
  return { ...state, hags: withHagFact(state.hags, fact, now) }
}

/** Before the pass that the same event causes. */
function withoutWans(state: State, isGone: (wan: WanAddresses) => boolean, reason: string, now: number): State {
  const left = state.wans.filter(isGone)
  if (left.length === 0) return state
  const wans = state.wans.filter((wan) => !left.includes(wan))
  const addresses = left.flatMap((wan) => families.flatMap((family) => wan[`address${family}`] ?? []))
  return { ...state, wans, gone: new Set([...state.gone, ...addresses]), links: withWans(state.links, wans, reason, now) }
}

/** While no HAG serves, each connection reports it, so what is known already must cost nothing. */
function withDirect(state: State, { wan, bind }: PathAddress, now: number): State {
  const family = familyOfAddress(bind)
  const last = state.direct[family]
  const hags = withDirectAnswer(state.hags, now)
  const isKnown = last?.wan === wan && last.times >= directAnswersToTrust
  if (isKnown || wanLinks(state, family).some(isUsable)) return hags === state.hags ? state : { ...state, hags }
  return { ...state, hags, direct: { ...state.direct, [family]: { wan, times: last?.wan === wan ? last.times + 1 : 1 } } }
}

/** What changes by time alone. What is known about IPv6 of a HAG that is no longer used is forgotten. */
function withTime(state: State, now: number): State {
  const usable = usableHags(state)
  const hags = state.hags.map((one) => {
    const ipv6 = usable.includes(one) ? withIpv6Time(one.ipv6, linkTo(state, one.hag) !== undefined, now) : undefined
    return ipv6 === one.ipv6 ? one : { ...one, ipv6 }
  })
  return hags.every((one, index) => one === state.hags[index]) ? state : { ...state, hags }
}

function withRoles(state: State, links: ByFamily<readonly WanLink[]>, now: number): State {
  const isEarly = now - state.startedAt < firstProbesMs
  const seen = state.config.wans.map((wan) => {
    const own = families.flatMap((family) => links[family].filter((link) => link.wan === wan.name))
    const rtts = own.flatMap((link) => (isUsable(link) && link.rttMs !== undefined ? [link.rttMs] : []))
    return {
      wan,
      isUsable: own.some(isUsable),
      isLost: own.every((link) => link.state === 'down'),
      rttMs: rtts.length > 0 ? Math.min(...rtts) : undefined,
    }
  })
  const isAnyUsable = seen.some((one) => one.isUsable)
  const reports = seen.map(({ wan: { name, role }, isUsable, isLost, rttMs }) => {
    const { receivedPerSecond, sentPerSecond } = state.rates.get(name) ?? noRates
    const volumeExhausted = role !== 'backup' && state.exhausted.has(name)
    const counts = isUsable || (isEarly && isAnyUsable && !isLost)
    return { name, role, isUsable: counts, rttMs, receivedPerSecond, sentPerSecond, volumeExhausted }
  })
  return { ...state, roles: select(state.roles, reports, state.sampledAt) }
}

/** What a WAN is for now. */
export function currentRole({ config, exhausted }: State, wan: string): Role {
  const { role = 'normal' } = config.wans.find(({ name }) => name === wan) ?? {}
  return roleOf({ role, volumeExhausted: exhausted.has(wan) })
}

/** The interface of a WAN. */
export const deviceOf = ({ links }: State, wan: string): string => links.find((link) => link.wan === wan)?.device ?? ''

export const hagFamily = ({ address }: Pick<Hag, 'address'>): Family => familyOfAddress(address)

/** Best first. */
export const wanLinks = ({ links, hags }: State, family: Family): WanLink[] =>
  linksOf(
    links,
    family,
    hags.some(({ hag }) => hagFamily(hag) === family),
  )

/** Usable links to a HAG; those whose volume costs nothing come first. */
export function linksByCost(state: State, hag: Hag): WanLink[] {
  const usable = wanLinks(state, hagFamily(hag)).filter(isUsable)
  return [...usable.filter(({ metered }) => !metered), ...usable.filter(({ metered }) => metered)]
}

/** The link over which to ask a HAG on behalf of its users. */
export const linkTo = (state: State, hag: Hag): WanLink | undefined =>
  linksByCost(state, hag).find(({ bind }) => !admission.isRefused(state.admissions, hag, bind))

/** HAGs to use, best first: never one that is down, or that refuses us over all WANs that work. */
export function usableHags(state: State, hags: readonly HagState[] = state.hags): HagState[] {
  return hagsThere(hags).filter(({ hag }) => {
    const links = linksByCost(state, hag)
    return links.length === 0 || links.some(({ bind }) => !admission.isRefused(state.admissions, hag, bind))
  })
}
