/** Steer and the probers that report to it, with an engine and a network that the test makes. Nothing else asks or decides. */

import { pause } from '../../src/base/pause.js'
import { reportProbe } from '../../src/gateway/hag-facts.js'
import { HagDirectory } from '../../src/gateway/hags/directory.js'
import { HagProber } from '../../src/gateway/hags/hag-prober.js'
import { type Hag, isSameHag } from '../../src/gateway/model.js'
import { isAdmissionDue, isRefused, isToConfirm } from '../../src/gateway/steering/admissions.js'
import * as schedule from '../../src/gateway/steering/schedule.js'
import { linksByCost, type State, wanLinks } from '../../src/gateway/steering/state.js'
import { Steer } from '../../src/gateway/steering/steer.js'
import { hasEndpoint } from '../../src/gateway/steering/target.js'
import type { LinkState } from '../../src/gateway/steering/wan-links.js'
import { LinkProber } from '../../src/gateway/wans/link-prober.js'
import { Reconciler } from '../../src/network/reconcile.js'
import type { HubOptions } from './steering-record.js'

export function startNewHub(options: HubOptions) {
  const { config, entries, engine, network, log, wans, counters } = options
  const configured = config.wans.map(({ name, role, metered }, index) => ({ name, role, metered: metered ?? index > 0 }))
  const stop = new AbortController()
  let reconciler: Reconciler | undefined
  const now = () => performance.now()
  const familyOf = (hag: Hag) => (hag.address.includes(':') ? 6 : 4)
  const ordered = () => steer.target.hags.flatMap((hag) => steer.state.hags.find((one) => isSameHag(one.hag, hag)) ?? [])

  const steer = new Steer({
    config: { wans: configured, onHagDown: config.on_hag_down },
    engine,
    log,
    dropEndpoints: (addresses) => network.dropEndpoints(addresses),
    reconcile: (forced) => (forced === undefined ? reconciler?.schedule() : reconciler?.forceReport(forced)),
    usePaths: () => {},
    onChange: (before, after) => wake(before, after),
  })
  const reportHag = (probed: Parameters<typeof reportProbe>[0]) =>
    void reportProbe(probed, {
      engine,
      linksTo: (hag) => wanLinks(steer.state, familyOf(hag)),
      isDown: (hag) => steer.state.hags.some((one) => isSameHag(one.hag, hag) && one.health.state === 'down'),
      report: (fact) => steer.report(fact),
    })
  const links = new LinkProber({
    engine,
    log,
    counters,
    links: () => steer.state.links,
    hags: (family) => schedule.hagsToAsk(ordered(), family),
    nextProbe(link) {
      const due = schedule.nextProbeAt(steer.state, link as LinkState, 0)
      return due && { afterMs: due.at, timeoutMs: due.timeoutMs }
    },
    asksForMptcp: (link) => schedule.asksForMptcp(link as LinkState, now()),
    report: (fact) => steer.report(fact),
    reportHag,
  })
  const stateOf = (hag: Hag) => steer.state.hags.find((one) => isSameHag(one.hag, hag))
  const hags = new HagProber({
    engine,
    log,
    examine: options.examine,
    hags: ordered,
    isGreetingDue({ hag }) {
      const one = stateOf(hag)
      const how = { inUse: steer.target.usableHags[0], isRelaying: engine.stats().relaying > 0 }
      return one !== undefined && schedule.isHagDue(steer.state, one, how, now())
    },
    isRequestDue({ hag }) {
      const one = stateOf(hag)
      return one !== undefined && schedule.isCheckDue(steer.state, one, now())
    },
    isAdmissionDue: (hag, link) => isAdmissionDue(steer.state.admissions, hag, link, now()),
    isRefused: (hag, bind) => isRefused(steer.state.admissions, hag, bind),
    links: (hag) => wanLinks(steer.state, familyOf(hag)),
    linksByCost: (hag) => linksByCost(steer.state, hag),
    cheapestLink: (hag) => schedule.cheapestLink(steer.state, hag),
    report: (fact) => steer.report(fact),
    reportHag,
    onAnswered({ bind }) {
      for (const [index, { address, health }] of steer.state.links.entries())
        if (address === bind && health.state === 'down' && health.answers === 0) links.probeNow(index)
    },
  })

  /** What the probers wait for. */
  function wake(before: State, after: State): void {
    for (const [index, link] of after.links.entries())
      if (link.address !== before.links[index]?.address) links.probeNow(index, true)
    const isUrgent = after.hags.some((one) => {
      const former = before.hags.find(({ hag }) => isSameHag(hag, one.hag))
      if (former === undefined || former === one) return false
      const isUndecided = one.fall !== undefined && former.fall === undefined && one.fall.death === undefined
      const isDoubted = one.fall?.directAnsweredAt !== former.fall?.directAnsweredAt && one.fall?.directAnsweredAt !== undefined
      return (former.health.misses === 0 && one.health.misses > 0) || isUndecided || isDoubted
    })
    if (isUrgent) hags.probeNow()
  }

  const directory = new HagDirectory({ entries, log })
  const ranked = directory.hags.map((hag) => ({
    hag,
    priority: `${entries.find(({ address }) => address === hag.address)?.priority}`,
  }))
  steer.report({ type: 'hags-changed', hags: ranked })
  steer.report({ type: 'wans-planned', wans })
  reconciler = new Reconciler({
    async apply() {
      const { best, hagFamilies } = steer.target
      const withoutEndpoint = { has: (address: string) => !hasEndpoint(steer.target, address) }
      const { remaking } = steer.state
      const plan = options.onPass({
        best: JSON.parse(JSON.stringify(best)),
        hagFamilies,
        withoutEndpoint,
        hags: steer.target.hags,
      })
      await Promise.resolve()
      if (remaking !== undefined) steer.report({ type: 'endpoint-removed', bind: remaking })
      return plan
    },
    onWans(wans) {
      log.info('WANs changed', { wans })
      steer.report({ type: 'wans-planned', wans })
    },
    log,
    initial: { wans, notes: [] },
  })

  async function sampleRates(): Promise<void> {
    let lookedAt = now()
    let totals = counters()
    if (configured.length < 2) return
    while (!stop.signal.aborted) {
      const seconds = (now() - lookedAt) / 1000
      const counted = counters()
      const rate = (total: number, then = total) => (seconds > 0 && total > then ? (total - then) / seconds : 0)
      const rates = new Map(
        configured.map(({ name }) => {
          const [last, { received, sent }] = [totals.get(name), counted.get(name) ?? { received: 0, sent: 0 }]
          return [name, { receivedPerSecond: rate(received, last?.received), sentPerSecond: rate(sent, last?.sent) }]
        }),
      )
      totals = counted
      lookedAt = now()
      steer.report({ type: 'rates-sampled', rates, exhausted: new Set() })
      await pause(1000, stop.signal)
    }
  }

  const ended = Promise.all([reconciler.run(stop.signal), links.run(stop.signal), sampleRates(), hags.run(stop.signal)])
  return {
    steer,
    firstAnswer: () => hags.askAll(3000, steer.target.hags),
    suspect: (hag: Hag, about: 'connection' | 'request') => steer.report({ type: 'hag-trouble', hag, about }),
    async requestRefused(hag: Hag, path: { wan: string; bind: string }) {
      steer.report({ type: 'request-refused', hag, path })
      if (isToConfirm(steer.state.admissions, hag, path.bind))
        steer.report({ type: 'users-served', hag, path, isAnyServed: false })
    },
    wentAround: (path: { wan: string; bind: string }) => steer.report({ type: 'direct-answered', path }),
    doubtMptcp(bind: string) {
      const isDoubted = steer.state.links.findIndex(({ address, mptcp }) => address === bind && mptcp.state === 'yes')
      steer.report({ type: 'mptcp-fell-back', bind })
      if (isDoubted >= 0) links.probeNow(isDoubted)
    },
    onGone: (device: string, what: string) => steer.report({ type: 'link-gone', interface: device, what }),
    onAddressGone: (address: string) => steer.report({ type: 'address-gone', address }),
    onChange: () => reconciler?.schedule(),
    setNarrow: (bind: string, isNarrow: boolean) => steer.report({ type: 'full-size-seen', bind, passes: !isNarrow }),
    remake: (bind: string) => steer.report({ type: 'endpoint-to-remake', bind }),
    hags: () => steer.target.hags,
    links: (family: 4 | 6) => steer.target.links[family],
    stop() {
      stop.abort()
      steer.end()
    },
    ended,
  }
}
