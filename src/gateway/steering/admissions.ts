/** Which HAG serves us over which WAN: it may serve one of our addresses and refuse another. Without clock or I/O. */
import { formatSocketAddress } from '../../base/address.js'
import type { Hag } from '../model.js'

/** Users' requests in a row that a HAG refused, before its refusal of ours is taken for one of us. */
const refusalsToTell = 3
/** If only users' requests tell of a refusal, it expires after this time: their destinations may have been the reason. */
const trustMs = 5 * 60_000
/** How often to ask again a HAG that refuses us, or one of which nothing is known yet. */
const againMs = { refused: 10_000, unknown: 30_000, metered: 15 * 60_000 }

/** What is known about one HAG and one address of ours. */
export interface Admission {
  /** Whether it has served a CONNECT of ours that it would not serve to a stranger. */
  readonly serves: boolean | undefined
  /** Users' requests that were refused since one was served. */
  readonly refusals: number
  readonly askedAt: number
  /** It refuses us: since when, how we know, and whether it is certain that the refusal is about us. */
  readonly refused: { readonly at: 'greeting' | 'request'; readonly since: number; readonly isSure: boolean } | undefined
  /** What the log said about it. */
  readonly reason: string
}

/** By `keyOf`. */
export type Admissions = ReadonlyMap<string, Admission>

const nothingKnown: Admission = {
  serves: undefined,
  refusals: 0,
  askedAt: Number.NEGATIVE_INFINITY,
  refused: undefined,
  reason: '',
}

const prefixOf = (hag: Hag) => `${formatSocketAddress(hag)} `
const keyOf = (hag: Hag, bind: string) => `${prefixOf(hag)}${bind}`

export const admissionOf = (all: Admissions, hag: Hag, bind: string): Admission | undefined => all.get(keyOf(hag, bind))

export const isRefused = (all: Admissions, hag: Hag, bind: string): boolean => admissionOf(all, hag, bind)?.refused !== undefined

/** When to ask the HAG whether it serves us there; may be long ago; infinite if that is known. */
export function admissionDueAt(all: Admissions, hag: Hag, link: { bind: string; metered: boolean }): number {
  const known = admissionOf(all, hag, link.bind)
  if (known === undefined) return Number.NEGATIVE_INFINITY
  // Its rules may have changed.
  const isDoubtful = known.serves === undefined || (known.serves && known.refusals >= refusalsToTell)
  if (known.refused === undefined && !isDoubtful) return Number.POSITIVE_INFINITY
  return known.askedAt + (link.metered ? againMs.metered : againMs[known.refused ? 'refused' : 'unknown'])
}

/** Enough users were refused to ask whether another user is served there. */
export function isToConfirm(all: Admissions, hag: Hag, bind: string): boolean {
  const { serves, refusals, refused } = admissionOf(all, hag, bind) ?? nothingKnown
  return refusals >= refusalsToTell && serves === false && refused === undefined
}

function change(all: Admissions, hag: Hag, bind: string, to: Partial<Admission>): Admissions {
  return new Map(all).set(keyOf(hag, bind), { ...(admissionOf(all, hag, bind) ?? nothingKnown), ...to })
}

/** Forgets all other HAGs. */
export function keepHags(all: Admissions, hags: readonly Hag[]): Admissions {
  const prefixes = hags.map(prefixOf)
  return new Map([...all].filter(([key]) => prefixes.some((prefix) => key.startsWith(prefix))))
}

/** It may have been restarted with another config: what it refused is to be asked for again at once. */
export const askAgain = (all: Admissions, hag: Hag): Admissions =>
  new Map(
    [...all].map(([key, known]) => {
      const isRefused = known.refused !== undefined && key.startsWith(prefixOf(hag))
      return [key, isRefused ? { ...known, askedAt: nothingKnown.askedAt } : known]
    }),
  )

export const asked = (all: Admissions, hag: Hag, bind: string, now: number) => change(all, hag, bind, { askedAt: now })

/** Before anything was asked for. */
export const turnedAway = (all: Admissions, hag: Hag, bind: string, why: string, now: number) =>
  refuse(all, hag, bind, { at: 'greeting', isSure: true, reason: why }, now)

export const greeted = (all: Admissions, hag: Hag, bind: string): Admissions =>
  admissionOf(all, hag, bind)?.refused?.at === 'greeting' ? admit(all, hag, bind) : all

/** It answered a CONNECT of ours. `refused`: with "not allowed", which others do not get. */
export function answered(all: Admissions, hag: Hag, bind: string, refused: boolean, now: number): Admissions {
  const known = change(all, hag, bind, { serves: !refused })
  if (!refused) return admit(known, hag, bind)
  const before = admissionOf(all, hag, bind)?.refused
  if (before?.isSure === false && now - before.since >= trustMs)
    return change(known, hag, bind, { refusals: 0, refused: undefined })
  return judge(known, hag, bind, now)
}

/** A user's request was refused there. */
export function userRefused(all: Admissions, hag: Hag, bind: string): Admissions {
  const refusals = admissionOf(all, hag, bind)?.refusals ?? 0
  return refusals < refusalsToTell ? change(all, hag, bind, { refusals: refusals + 1 }) : all
}

/** Whether another user's request was served there. */
export const userAsked = (all: Admissions, hag: Hag, bind: string, isServed: boolean, now: number): Admissions =>
  isServed ? change(all, hag, bind, { refusals: 0 }) : judge(all, hag, bind, now)

/**
 * A single refusal may be due to a rule about the destination. It is about us if the same HAG answers the same request over another WAN.
 */
function judge(all: Admissions, hag: Hag, bind: string, now: number): Admissions {
  const known = admissionOf(all, hag, bind) ?? nothingKnown
  if (known.serves !== false) return all
  const isServedElsewhere = [...all].some(([key, { serves }]) => key.startsWith(prefixOf(hag)) && serves === true)
  if (!isServedElsewhere && known.refusals < refusalsToTell) return all
  const reason = 'it refuses every request (reply 2): let its rules allow this address'
  return refuse(all, hag, bind, { at: 'request', isSure: isServedElsewhere, reason }, now)
}

function refuse(
  all: Admissions,
  hag: Hag,
  bind: string,
  { at, isSure, reason }: { at: 'greeting' | 'request'; isSure: boolean; reason: string },
  now: number,
): Admissions {
  const since = admissionOf(all, hag, bind)?.refused?.since ?? now
  return change(all, hag, bind, { refused: { at, isSure, since }, reason })
}

const admit = (all: Admissions, hag: Hag, bind: string) => change(all, hag, bind, { refused: undefined, refusals: 0, reason: '' })
