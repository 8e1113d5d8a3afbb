/** What a HAG needs of its machine: a pure function of the config and of what was observed. */
import type { Family } from '../../base/address.js'
import type { HagConfig } from '../../config/schema.js'
import { inPlaceOfMain, isForPort, isSameCopy, windowRule } from '../kernel/copy.js'
import { type CopiedRoute, type Desired, type DesiredCopy, nothing, type Observed, owned, type RouteCopy } from '../state.js'
import { wantedProbing } from './sysctls.js'

/**
 * Each for itself: if one cannot be had there is a note, and the rest is done all the same. The windows first: a copy that is not true any more
 * leads packets astray.
 */
export const hagNeeds = ['window4', 'window6', 'subflows', 'probing'] as const
export type HagNeed = (typeof hagNeeds)[number]

/** The kernel's own limit, so that all WANs of a gateway can join. */
const maxSubflows = owned.count
/** No copy of a router's full table, because it changes all day. */
const maxRoutes = 500

const kept: Record<HagNeed, string> = {
  subflows: 'how many WANs can join a connection stays as it is',
  probing: 'what becomes of lines that drop full-size packets stays as it is',
  window4: "answers over IPv4 begin with the kernel's initial window",
  window6: "answers over IPv6 begin with the kernel's initial window",
}

/** What is so if a need is met after all. */
export const metNotes: Record<HagNeed, (config: HagConfig) => string> = {
  subflows: () => 'now as many WANs can join a connection as a gateway can have',
  probing: () => 'now smaller packets are tried on lines that drop full-size ones',
  window4: ({ initial_window: segments }) => `answers over IPv4 begin with ${segments} segments again`,
  window6: ({ initial_window: segments }) => `answers over IPv6 begin with ${segments} segments again`,
}

/** Why a need cannot be met. */
export const hagNote = (need: HagNeed, why: string) => `${kept[need]}: ${why}`

export interface HagOptions {
  /** No other HAG is here: our window counts, and rules for other ports are removed. */
  isAlone: boolean
}

/** Only what was observed is wanted. */
export function desiredForHag(config: HagConfig, observed: Observed, { isAlone }: HagOptions): Desired {
  const { copies, subflows, sysctls } = observed
  const windows = copies.map((copy) => desiredWindow(config, copy, isAlone))
  return {
    ...nothing,
    subflows: subflows === undefined ? undefined : Math.max(subflows, maxSubflows),
    sysctls: new Map([...sysctls].map(([path, now]) => [path, wantedProbing(now)])),
    copies: windows.filter((one) => typeof one !== 'string'),
    notes: windows.filter((one) => typeof one === 'string'),
  }
}

/** A note instead if there cannot be a copy. */
function desiredWindow(
  { listen: { port }, initial_window: segments }: HagConfig,
  have: RouteCopy,
  isAlone: boolean,
): DesiredCopy | string {
  const { family, main, routes } = have
  const shared = isAlone ? [] : have.rules.map(({ spelling }) => spelling)
  if (segments === 0) return { family, rules: shared, routes: isAlone ? [] : routes }
  const why = whyNoCopy(have)
  if (why !== undefined) return hagNote(needOf(family), why)
  /** If somebody gave a route a window, it stays. */
  const copyWith = (window: (at: number) => string | undefined): CopiedRoute[] =>
    main.map((route, at) => ({ words: route.words, window: route.window ?? window(at), isOurs: true }))
  // The window of the first HAG counts; otherwise two HAGs would change it for ever.
  const theirs = copyWith((at) => routes[at]?.window)
  const copy = !isAlone && isSameCopy(routes, theirs) ? routes : copyWith(() => String(segments))
  return { family, rules: [windowRule(port), ...shared.filter((rule) => !isForPort(rule, port))], routes: copy }
}

const needOf = (family: Family): HagNeed => `window${family}`

function whyNoCopy(have: RouteCopy): string | undefined {
  const other = inPlaceOfMain(have)
  if (other !== undefined) return `where the rule for the main table should be, there is ${other}`
  const theirs = have.routes.find(({ isOurs }) => !isOurs)
  if (theirs !== undefined) return `table ${owned.hagTable} is somebody else's, it has ${theirs.words}`
  return have.main.length > maxRoutes ? `the main table has ${have.main.length} routes` : undefined
}
