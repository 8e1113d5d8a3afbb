/** Events of which WANs are in use: roles, overflow and the drag guard. */
import { info, type Lines } from './line.js'

type Role = 'normal' | 'overflow' | 'backup'

/** Rates are those of all WANs together, bytes a second; `others` are WANs beside this one. */
export type UseReason =
  /** An overflow WAN joins because these have been full, */
  | { readonly why: 'others-full'; readonly others: readonly string[]; readonly seconds: number; readonly rate: number }
  /** or leaves. */
  | { readonly why: 'others-suffice'; readonly others: readonly string[] }
  | { readonly why: 'others-not-full' }
  | { readonly why: 'no-gain'; readonly rateWithout: number; readonly rateWith: number }
  /** The drag guard tries without it; `alone`: what the others have carried without it. */
  | { readonly why: 'drag-trial'; readonly rateWith: number; readonly others: readonly string[]; readonly alone: number }
  | { readonly why: 'no-drag'; readonly rateWith: number; readonly rateWithout: number }
  | { readonly why: 'drags'; readonly minutes: number; readonly rateWith: number; readonly rateWithout: number }
  /** By role and health. */
  | { readonly why: 'no-better'; readonly role: Role }
  | { readonly why: 'usable'; readonly isAgain: boolean }
  | { readonly why: 'volume-exhausted' }
  | { readonly why: 'not-needed'; readonly role: Role; readonly others: readonly string[] }

export interface UseEvents {
  /** Why a WAN is now in use or not, or why it stays so. */
  'wan-use': { readonly wan: string; readonly isInUse: boolean; readonly reason: UseReason }
}

export const useLines: Lines<UseEvents> = { 'wan-use': ({ wan, reason }) => info(textOf(wan, reason)) }

function textOf(wan: string, reason: UseReason): string {
  switch (reason.why) {
    case 'others-full': {
      const { others, seconds, rate } = reason
      return `overflow WAN ${wan} joins: ${list(others)} has been full for ${seconds} s at ${mbit(rate)}`
    }
    case 'others-suffice':
      return `overflow WAN ${wan} leaves: ${list(reason.others)} can carry it alone`
    case 'others-not-full':
      return `overflow WAN ${wan} leaves: the others are no longer full`
    case 'no-gain': {
      const { rateWithout, rateWith } = reason
      return `overflow WAN ${wan} leaves: the sum was ${mbit(rateWithout)} without it and is ${mbit(rateWith)} with it`
    }
    case 'drag-trial': {
      const { rateWith, others, alone } = reason
      return `WAN ${wan} is taken out for a trial: with it the sum is ${mbit(rateWith)}, ${list(others)} alone carried ${mbit(alone)}`
    }
    case 'no-drag': {
      const { rateWith, rateWithout } = reason
      return `WAN ${wan} is in use again: the sum is not much higher without it (${mbit(rateWith)}, then ${mbit(rateWithout)})`
    }
    case 'drags': {
      const { minutes, rateWith, rateWithout } = reason
      return `WAN ${wan} stays out for ${minutes} min: the sum was ${mbit(rateWith)} with it and is ${mbit(rateWithout)} without it`
    }
    case 'no-better':
      return `${reason.role} WAN ${wan} takes over: no better WAN is up`
    case 'usable':
      return `WAN ${wan} is in use${reason.isAgain ? ' again' : ''}`
    case 'volume-exhausted':
      return `WAN ${wan} is out of use: its monthly volume is used up`
    case 'not-needed':
      return `${reason.role} WAN ${wan} is out of use: ${list(reason.others)} carries all`
  }
}

const mbit = (bytesPerSecond: number) => `${((bytesPerSecond * 8) / 1e6).toFixed(1)} Mbit/s`
const list = (names: readonly string[]) => names.join(' and ')
