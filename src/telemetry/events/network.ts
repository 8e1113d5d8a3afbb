/** Events of the machine's network set-up. */
import { info, type Lines, warn } from './line.js'
import type { Whereabouts } from './wans.js'

export interface NetworkEvents {
  /** At the start, with the WANs that there are. */
  'network-set-up': { readonly wans: readonly Whereabouts[] }
  /** Somebody or something had changed it; what was done. */
  'network-changed': { readonly steps: readonly string[] }
  /** A remark on the machine, for its owner. */
  'network-note': { readonly note: string }
  /** It is tried again, and said again for another reason only. */
  'network-failed': { readonly reason: string; readonly isAtStart: boolean }
  'network-works-again': object
  /** The kernel's memory of paths that swallow MPTCP has made so many connections plain TCP; it is told to forget. */
  'kernel-black-hole': { readonly count: number }
  /** It does not forget. */
  'kernel-black-hole-stays': { readonly reason: string }
  /** Of a HAG. `note`: what one of its needs stays without, and why. */
  'hag-need-unmet': { readonly need: string; readonly note: string }
  /** It is met after all. `note`: what is as it should be. */
  'hag-need-met': { readonly need: string; readonly note: string }
  /** From now on new connections of the LAN come to the gateway. */
  'lan-redirected': object
  /** Without a WAN, or without the LAN's interface. */
  'lan-not-redirected': object
  /** A WAN was lost, and connections may not leave it yet. */
  'endpoint-not-deleted': { readonly reason: string }
  /** A part of the program that the set-up needs; it is started again. */
  'network-watch-ended': { readonly reason: string }
  'guardian-ended': { readonly reason: string; readonly restartMs: number }
  /** At the end: while connections drain, new ones still come. */
  'redirection-stays': { readonly reason: string }
  'network-restored': object
  /** Of a HAG, at its start and its end. */
  'other-hags-unknown': { readonly reason: string }
  'hag-network-not-restored': { readonly reason: string }
}

export const networkLines: Lines<NetworkEvents> = {
  'network-set-up': ({ wans }) => info('network is set up', { wans }),
  'network-changed': ({ steps }) => info('the network changed and was set up anew', { steps }),
  'network-note': ({ note }) => warn(note),
  'network-failed': ({ reason, isAtStart }) =>
    warn(`the network could not be set up${isAtStart ? '' : ' anew'}, another try follows: ${reason}`),
  'network-works-again': () => info('the network set-up works again'),
  'kernel-black-hole': ({ count }) =>
    warn(`the kernel took MPTCP for blocked and made ${count} connections plain TCP: it is told to forget that`),
  'kernel-black-hole-stays': ({ reason }) => warn(`the kernel does not forget it: ${reason}`),
  'hag-need-unmet': ({ note }) => info(note),
  'hag-need-met': ({ note }) => info(note),
  'lan-redirected': () => info('the LAN is redirected'),
  'lan-not-redirected': () => info('the LAN is not redirected: its connections go as without bondsocks'),
  'endpoint-not-deleted': ({ reason }) => warn(`an endpoint could not be deleted: ${reason}`),
  'network-watch-ended': ({ reason }) => warn(`the watch on the network ended and is started again: ${reason}`),
  'guardian-ended': ({ reason, restartMs }) =>
    warn(`the guardian ended and is started again: ${reason}`, { milliseconds: restartMs }),
  'redirection-stays': ({ reason }) => warn(`the redirection stays until the end: ${reason}`),
  'network-restored': () => info('network is as before'),
  'other-hags-unknown': ({ reason }) => info(`other HAGs on this machine are not asked: ${reason}`),
  'hag-network-not-restored': ({ reason }) => warn(reason),
}
