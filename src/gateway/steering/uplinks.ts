/**
 * The WANs and HAGs that are in use, and what follows when they change: where connections go, which WANs have endpoints, which connections
 * are given up.
 */
import { setMaxListeners } from 'node:events'
import { type Family, familyOfAddress, formatSocketAddress, type SocketAddress } from '../../base/address.js'
import { joinsByOwnDevice } from '../../base/kernel-version.js'
import { aborted, pause } from '../../base/pause.js'
import type { GatewayConfig } from '../../config/schema.js'
import type { Engine } from '../../engine/contract.js'
import { Reconciler } from '../../network/reconcile.js'
import type { NetworkOptions, NetworkPlan } from '../../network/state.js'
import type { WatchEvents } from '../../network/watch.js'
import { inBackground } from '../../service/faults.js'
import type { Log } from '../../telemetry/log.js'
import { PathTable } from '../connections/path-table.js'
import { PreparedConnections } from '../connections/prepared.js'
import { HagDirectory, type HagEntryWithPassword } from '../hags/directory.js'
import { type FirstAnswer, firstAnswer } from '../hags/first-answer.js'
import { Ipv6 } from '../hags/ipv6.js'
import { HagProber } from '../hags/prober.js'
import { families, type Hag, type Path, type PathAddress, type WanPath } from '../model.js'
import { RoleSampler } from '../roles/sampler.js'
import { BundleWatch } from '../wans/bundle-watch.js'
import { FullSize } from '../wans/full-size.js'
import { watchKeepalive } from '../wans/keepalive.js'
import { watchBlackHole } from '../wans/kernel-blackhole.js'
import { WanProber } from '../wans/prober.js'
import { Rejoin, rejoinLookMs } from '../wans/rejoin.js'
import { bestFamily, withoutHag } from './family.js'

/** What is done about the network; the `Network` is one. */
export interface NetworkControl {
  apply(config: GatewayConfig, options?: NetworkOptions): Promise<NetworkPlan>
  /** Deletes the MPTCP endpoints of these addresses at once, ahead of a full pass. */
  dropEndpoints(addresses: readonly string[]): Promise<void>
  /** Clears the kernel's memory of paths that swallow MPTCP; the setting stays. */
  forgetBlackHole(): Promise<void>
  remove(): Promise<unknown>
}

/**
 * When it hears that a WAN is gone, a HAG sends again all that MPTCP has not acknowledged, also what has arrived over the other WANs and
 * only waits for bytes of the lost one, or is acknowledged in these very moments: 50 to 220 kB of a download, in front of what is missing.
 * A little later most of that is acknowledged. Pauses of bulk downloads at link down, ten or twenty each: at once 128 to 162 ms (median
 * 140), after 15 ms 85 to 143 (106), after 25 ms 83 to 146 (100), after 35 ms the same.
 */
const acknowledgedMs = 25
/** A subflow over another WAN takes a round trip or two to come up; what has none by then is dead. */
const strandedMs = 1500
/** How often it is looked then, so many ms apart: a join that is under way may yet be in vain. */
const strandedLooks = 10
const lookMs = 500

/** One lost SYN sends a connection another way. */
const timesToTrust = 3

interface Answered {
  wan: string
  times: number
}

export interface UplinksOptions {
  config: GatewayConfig
  entries: readonly HagEntryWithPassword[]
  engine: Pick<
    Engine,
    | 'probe'
    | 'inspect'
    | 'inspectBusy'
    | 'setKeepalive'
    | 'prepare'
    | 'keepPrepared'
    | 'connect'
    | 'useDevices'
    | 'abandon'
    | 'resetUpstreams'
    | 'resetStranded'
    | 'countOnly'
    | 'watchUpstreams'
    | 'stats'
  >
  network: NetworkControl
  log: Log
}

export class Uplinks {
  readonly pathTable: PathTable
  readonly prepared: PreparedConnections
  readonly #options: UplinksOptions
  readonly #directory: HagDirectory
  readonly #hags: HagProber
  readonly #wans: WanProber
  readonly #ipv6: Ipv6
  readonly #roles: RoleSampler
  readonly #fullSize: FullSize
  readonly #rejoins: readonly Rejoin[]
  /** Whether connections are bonded, for whoever asks. */
  readonly bundle: BundleWatch
  /** The address whose endpoint is to be made anew: away with the next pass, back with the one after. */
  #remaking: string | undefined
  #plan: Pick<NetworkPlan, 'wans' | 'notes'> = { wans: [], notes: [] }
  readonly #devices = new Map<string, string>()
  #reconciler: Reconciler | undefined
  /** Addresses that have no endpoint now, because their WANs are lost. */
  #withoutEndpoint: ReadonlySet<string> = new Set()
  #best: { 4?: string; 6?: string } = {}
  /** The WAN over which connections around the HAGs were answered, so often in a row. */
  readonly #direct: { 4?: Answered; 6?: Answered } = {}
  #redirects = false
  readonly #redirected = new AbortController()
  /** The family in which connections to HAGs find most WANs. */
  #family: Family | undefined
  /** Of the HAGs, the best one first. */
  #hagFamilies: readonly Family[] = []
  readonly #ended = new AbortController()

  constructor(options: UplinksOptions) {
    const { config, entries, engine, log } = options
    this.#options = options
    this.pathTable = new PathTable({ onHagDown: config.on_hag_down })
    this.prepared = new PreparedConnections({
      engine,
      log,
      most: config.prepared_connections,
      paths: () => this.pathTable.preparable,
      onDoubt: ({ bind }) => this.mptcpFellBack(bind),
    })
    this.#directory = new HagDirectory({ entries, log, sources: () => this.#plan.wans })
    this.#hags = new HagProber({
      engine,
      log,
      paths: (family) => this.#paths(family),
      onPathAnswered: ({ bind }) => this.#wans.pathAnswered(bind),
      onChange: () => this.#update(),
      onDead: (hag, how) => this.#hagDied(hag, how),
      onReturn: (hag) => this.#hagReturned(hag),
    })
    this.#wans = new WanProber({
      engine,
      log,
      wans: config.wans.map(({ name, metered }, index) => ({ name, metered: metered ?? index > 0 })),
      hags: (family) => this.#hags.targets(family),
      onHagProbed: (hag, result, askedAt, path) => this.#hags.recordProbe(hag, result, askedAt, path),
      onTurnedAway: (hag, path, how) => this.#hags.recordTurnedAway(hag, path, how),
      onChange: () => this.#update(),
    })
    this.#fullSize = new FullSize({
      engine,
      log,
      paths: (family) => this.#wans.paths(family),
      hags: (family) => this.#hags.targets(family),
      onChange: () => this.#update(),
    })
    this.#ipv6 = new Ipv6({
      engine,
      log,
      hags: () => this.#hags.usable,
      pathTo: (hag) => this.#hags.pathTo(hag),
      own: () =>
        this.#plan.wans.flatMap(({ address6 }) =>
          address6 === undefined ? [] : [{ address: address6, port: config.listen.port }],
        ),
      onChange: () => this.#reconciler?.schedule(),
    })
    this.#roles = new RoleSampler({
      wans: config.wans,
      deviceOf: (wan) => this.#deviceOf(wan),
      health: (wan) => {
        const paths = families.flatMap((family) => this.#paths(family).filter((path) => path.wan === wan))
        const rtts = paths.flatMap(({ usable, rttMs }) => (usable && rttMs !== undefined ? [rttMs] : []))
        return {
          usable: paths.some(({ usable }) => usable),
          lost: paths.every(({ lost }) => lost),
          rttMs: rtts.length > 0 ? Math.min(...rtts) : undefined,
        }
      },
      volumeFile: config.volume_file,
      log,
      onChange: () => this.#update(),
    })
    this.bundle = new BundleWatch({
      engine,
      log,
      members: () =>
        this.#hagFamilies.flatMap((family) =>
          this.#bonded(family).map(({ wan, bind }) => ({ wan, family, bind, device: this.#deviceOf(wan) })),
        ),
      obstacles: () => withoutHag(this.#plan.wans, this.#hagFamilies),
      isToHag: ({ remote }) => this.#hags.all.some(({ address, port }) => address === remote.address && port === remote.port),
    })
    this.#rejoins = families.map(
      (family) =>
        new Rejoin({
          engine,
          log,
          paths: () => this.#bonded(family).map(({ wan, bind }) => ({ wan, bind, rate: this.#roles.rate(wan) })),
          remake: (bind) => {
            this.#remaking = bind
            this.#reconciler?.schedule()
          },
        }),
    )
  }

  /** What the HAGs say at the start. Until the LAN is redirected it goes as it did before. */
  firstAnswer(): Promise<FirstAnswer> {
    return firstAnswer(this.#hags, this.#directory, () => this.#useHags())
  }

  /** As the directory has them now: WANs of a family that no HAG had wait for somebody to ask. */
  #useHags(): void {
    this.#hags.useHags(this.#directory.hags)
    this.#wans.probeUnasked()
  }

  /** Settles when the LAN is redirected, or at the end. */
  async redirect(): Promise<void> {
    await this.#ipv6.begin()
    this.#redirects = true
    this.#reconciler?.schedule()
    await Promise.race([aborted(this.#redirected.signal), aborted(this.#ended.signal)])
  }

  /** To be called after the end of `run`: new connections go around us, and everything else stays as it is. */
  async stopRedirecting(): Promise<void> {
    this.#redirects = false
    await this.#pass(false)
  }

  /** A connection had trouble with a HAG. */
  reportHagTrouble(hag: Hag, about: 'connection' | 'request'): void {
    this.#hags.reportTrouble(hag, about)
  }

  /** A HAG did not allow a connection's request. */
  recordRefusedRequest(hag: Hag, path: PathAddress): void {
    inBackground(this.#options.log, this.#hags.recordRefusedRequest(hag, path))
  }

  /** A HAG found no way to a connection's IPv6 destination. */
  noIpv6(hag: Hag, destination: SocketAddress): void {
    inBackground(this.#options.log, this.#ipv6.refused(hag, destination))
  }

  /** A connection around the HAGs was answered over this path. */
  recordDirectAnswer({ wan, bind }: Path): void {
    this.#hags.recordDirectAnswer()
    const last = this.#direct[familyOfAddress(bind)]
    const times = last?.wan === wan ? last.times + 1 : 1
    this.#direct[familyOfAddress(bind)] = { wan, times }
    if (times === timesToTrust) this.#update()
  }

  /** MPTCP over this address did not do what it should. */
  mptcpFellBack(bind: string): void {
    this.#wans.mptcpFellBack(bind)
  }

  /**
   * Until the signal: the network set-up follows the machine, and what is sent over a WAN follows its health. `fail` hears of what should not
   * be, and aborts the signal: no part goes on without the others, and none after the network was put back.
   */
  async run(
    plan: Pick<NetworkPlan, 'wans' | 'notes'>,
    watch: (events: WatchEvents, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
    fail: (error: unknown) => void,
  ): Promise<void> {
    const { log, network } = this.#options
    // All that runs below listens to it, each loop of each WAN.
    setMaxListeners(0, signal)
    this.#plan = plan
    this.#hags.useHags(this.#directory.hags)
    this.#useWans(plan.wans)
    this.#update()
    const reconciler = new Reconciler({
      apply: (quick) => this.#pass(quick),
      onWans: (wans) => {
        log.info('WANs changed', { wans })
        this.#plan = { ...this.#plan, wans: [...wans] }
        this.#useWans(wans)
        this.#update()
        this.#directory.refreshSoon()
      },
      log,
      initial: this.#plan,
    })
    this.#reconciler = reconciler
    const events: WatchEvents = {
      onChange: () => reconciler.schedule(),
      onGone: (device, what) => this.#wansLost((wan) => wan.interface === device, `interface ${device} ${what}`),
      onAddressGone: (address) =>
        this.#wansLost((wan) => wan.address4 === address || wan.address6 === address, `its address ${address} was deleted`),
    }
    const names = {
      onChange: () => this.#useHags(),
      isUrgent: () => this.#hags.usable.length === 0,
    }
    try {
      const parts = [
        reconciler.run(signal),
        this.#wans.run(signal),
        this.#roles.run(signal),
        this.#fullSize.run(signal),
        this.#rejoin(signal),
        this.bundle.run(signal),
        watchKeepalive(
          {
            engine: this.#options.engine,
            seconds: this.#options.config.keepalive_seconds,
            isMetered: () => families.some((family) => this.#bonded(family).some(({ metered }) => metered)),
          },
          signal,
        ),
        this.#hags.run(signal),
        this.#ipv6.run(signal),
        this.prepared.run(signal),
        this.#directory.run(names, signal),
        watchBlackHole({ forget: () => network.forgetBlackHole(), log }, signal),
        watch(events, signal),
      ]
      await Promise.all(parts.map((part) => part.catch(fail)))
    } finally {
      this.#reconciler = undefined
      this.#ended.abort()
    }
  }

  async #pass(quick: boolean): Promise<NetworkPlan> {
    const { config, network, log } = this.#options
    const withoutEndpoint = { has: (address: string) => this.#withholds(address) }
    const redirect = this.#redirects
    const facts = { hags: this.#hags.all, hagFamilies: this.#hagFamilies }
    const unserved = new Map<Family, string>(this.#ipv6.isCarried ? [] : [[6, noIpv6[config.on_hag_down]]])
    const options = { quick, redirect, withoutEndpoint, unserved, best: this.#best, ...facts }
    const remaking = this.#remaking
    const plan = await network.apply(config, options)
    if (remaking !== undefined && this.#remaking === remaking) {
      this.#remaking = undefined
      this.#reconciler?.schedule()
    }
    if (plan.steps.some(({ text }) => text.includes(' route '))) this.#fullSize.checkNow()
    if (plan.steps.some(isEndpointDeletion)) this.#watchStranded(strandedMs, 1)
    if (!redirect || this.#redirected.signal.aborted) return plan
    this.#redirected.abort()
    log.info('the LAN is redirected')
    return { ...plan, steps: [] }
  }

  /**
   * Is this address to have no endpoint? One that has just come gets it once its WAN is found to work: all connections join with it, and would
   * have to leave it again at once.
   */
  #withholds(address: string): boolean {
    if (this.#withoutEndpoint.has(address) || address === this.#remaking) return true
    const paths = this.#paths(familyOfAddress(address))
    return paths.some(({ usable }) => usable) && !paths.some(({ bind }) => bind === address)
  }

  #paths(family: Family): WanPath[] {
    return this.#fullSize.judge(this.#wans.paths(family))
  }

  #useWans(wans: readonly NetworkPlan['wans'][number][], reason?: string): void {
    const devices = wans.flatMap((wan) =>
      families.flatMap((family) => {
        const address = wan[`address${family}`]
        return address === undefined ? [] : [{ address, device: wan.interface }]
      }),
    )
    this.#options.engine.useDevices(devices, joinsByOwnDevice())
    this.#wans.useWans(wans, reason)
  }

  /** Ahead of the pass that the same event leads to: running connections leave the WAN now. */
  #wansLost(isGone: (wan: NetworkPlan['wans'][number]) => boolean, reason: string): void {
    const gone = this.#plan.wans.filter(isGone)
    if (gone.length === 0) return
    this.#plan = { ...this.#plan, wans: this.#plan.wans.filter((wan) => !gone.includes(wan)) }
    this.#useWans(this.#plan.wans, reason)
    // The last WAN keeps its endpoint: when it is back soon, its connections go on.
    const addresses = families.flatMap((family) => {
      const hasOther = this.#paths(family).some(({ usable }) => usable)
      return hasOther ? gone.flatMap((wan) => wan[`address${family}`] ?? []) : []
    })
    if (addresses.length > 0) inBackground(this.#options.log, this.#leaveWans(addresses, acknowledgedMs))
    this.#update()
    // The link may be back before the next pass looks: to it nothing has changed then.
    this.#reconciler?.forceReport(gone.map(({ name }) => `WAN ${name} is down: ${reason}`))
  }

  #update(): void {
    const all = { 4: this.#paths(4), 6: this.#paths(6) }
    this.#roles.update()
    this.#family = bestFamily(all, this.#roles.inUse, this.#family)
    if (this.#directory.prefer(this.#family)) {
      // That leads back here.
      this.#hags.useHags(this.#directory.hags)
      return
    }
    const hags = this.#hags.usable
    const pipelines = (hag: Hag) => this.#hags.pipelines(hag)
    const refuses = (hag: Hag, bind: string) => this.#hags.refuses(hag, bind)
    const used = { 4: wanted(all[4], this.#roles.inUse), 6: wanted(all[6], this.#roles.inUse) }
    const hagsDown = this.#hags.all.filter((hag) => !hags.includes(hag))
    const direct = { 4: this.#directPaths(all[4]), 6: this.#directPaths(all[6]) }
    this.pathTable.use({ hags, pipelines, refuses, hagsDown, paths: used, direct })
    this.prepared.tend()

    const without = new Set(families.flatMap((family) => unwanted(all[family], this.#roles.inUse, this.#withoutEndpoint)))
    const isNew = (address: string) => without.has(address) && !this.#withoutEndpoint.has(address)
    // A WAN that works and is not wanted any more leaves with the pass, which adds what comes instead first.
    const lost = families.flatMap((family) => all[family].filter(({ lost, bind }) => lost && isNew(bind)).map(({ bind }) => bind))
    const best = Object.fromEntries(
      families.flatMap((family) => {
        // Where none is usable it stays as it is; at first, as the first pass has made it. So it does until more is known of it.
        const current = this.#best[family] ?? this.#plan.wans.find((one) => one[`address${family}`] !== undefined)?.name
        const isOpen = used[family].some(({ wan, usable, lost }) => wan === current && !usable && !lost)
        const isUsable = (name: string) => used[family].some((path) => path.wan === name && path.usable)
        const usable = this.#options.config.wans.find((wan) => isUsable(wan.name))?.name
        if (usable !== undefined) delete this.#direct[family]
        // While no HAG answers over any WAN, what goes around them shows which one works.
        const { wan: around, times = 0 } = this.#direct[family] ?? {}
        const name = isOpen ? current : (usable ?? (times >= timesToTrust ? around : current))
        return name === undefined ? [] : [[family, name]]
      }),
    )
    const hagFamilies = [...new Set([...hags, ...this.#hags.all].map(({ address }) => familyOfAddress(address)))]
    const changed =
      hagFamilies.join() !== this.#hagFamilies.join() ||
      [...without].some(isNew) ||
      without.size !== this.#withoutEndpoint.size ||
      JSON.stringify(best) !== JSON.stringify(this.#best)
    this.#withoutEndpoint = without
    this.#best = best
    this.#hagFamilies = hagFamilies
    if (lost.length > 0) inBackground(this.#options.log, this.#leaveWans(lost))
    if (changed) this.#reconciler?.schedule()
  }

  /**
   * Where connections go that no HAG serves: not bonded, so the roles and the config's order count, not the milliseconds. That nobody
   * answers over a WAN says nothing against it while no HAG answers over any.
   */
  #directPaths(paths: readonly WanPath[]): WanPath[] {
    const { wans } = this.#options.config
    const isHagThere = this.#hags.isAnyThere
    const isStandby = ({ wan, usable }: WanPath) => usable && !this.#roles.inUse.has(wan)
    const places = { normal: 0, overflow: 1, backup: 2 }
    const rank = (path: WanPath) => (path.usable || !isHagThere ? 0 : 3) + places[this.#roles.roleOf(path.wan)]
    const place = ({ wan }: WanPath) => wans.findIndex(({ name }) => name === wan)
    const inUse = paths.filter((path) => !isStandby(path))
    return (inUse.length > 0 ? inUse : [...paths]).sort((one, other) => rank(one) - rank(other) || place(one) - place(other))
  }

  /** Running connections go on over the other WANs; what has only just begun over this one begins again elsewhere. */
  async #leaveWans(addresses: readonly string[], afterMs = 0): Promise<void> {
    const { engine, network, log } = this.#options
    for (const address of addresses) engine.abandon(address)
    this.#watchStranded(strandedMs)
    if (afterMs > 0) await pause(afterMs, this.#ended.signal)
    if (this.#ended.signal.aborted) return
    await network.dropEndpoints(addresses).catch((error: Error) => log.warn(`an endpoint could not be deleted: ${error.message}`))
    // A pass that has looked before may have found it in place, and the link back.
    if (afterMs > 0) this.#reconciler?.schedule()
  }

  /** WANs that connections to HAGs of a family go over now. */
  #bonded(family: Family): WanPath[] {
    return this.#wans
      .paths(family)
      .filter(({ usable, bind, protocol }) => usable && protocol === 'mptcp' && !this.#withoutEndpoint.has(bind))
  }

  #deviceOf(wan: string): string {
    // The config may have another name of it. What is down keeps its own.
    for (const { name, interface: device } of this.#plan.wans) this.#devices.set(name, device)
    return this.#devices.get(wan) ?? this.#options.config.wans.find(({ name }) => name === wan)?.interface ?? ''
  }

  async #rejoin(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(rejoinLookMs, signal)
      if (signal.aborted || this.#options.engine.stats().relaying === 0) continue
      for (const rejoin of this.#rejoins) await rejoin.look()
    }
  }

  /** After a HAG's death. */
  #hagDied(hag: Hag, how: 'refused' | 'silence'): void {
    if (how === 'refused') {
      // Each connection finds out when it sends something.
      this.#watchStranded(lookMs)
      return
    }
    const { engine, log } = this.#options
    const reset = engine.resetUpstreams(hag).then((count) => {
      if (count > 0)
        log.warn(`${count} connections over HAG ${formatSocketAddress(hag)} were reset, so that their clients begin anew`)
    })
    inBackground(log, reset)
  }

  /** A HAG that is back may have been started anew with its machine: it knows none of the old connections, and quiet ones would never learn. */
  async #hagReturned(hag: Hag): Promise<void> {
    const { engine } = this.#options
    engine.watchUpstreams(hag, true)
    await this.#resetStranded(lookMs)
    if (!this.#ended.signal.aborted) engine.watchUpstreams(hag, false)
  }

  #watchStranded(firstMs: number, looks?: number): void {
    inBackground(this.#options.log, this.#resetStranded(firstMs, looks))
  }

  async #resetStranded(firstMs: number, looks = strandedLooks): Promise<void> {
    const { engine, log } = this.#options
    for (let look = 0; look < looks; look++) {
      await pause(look === 0 ? firstMs : lookMs, this.#ended.signal)
      if (this.#ended.signal.aborted) return
      const count = await engine.resetStranded()
      if (count > 0) log.warn(`${count} connections had no way left and were reset, so that their clients begin anew`)
    }
  }
}

const noIpv6 = {
  direct: 'no HAG can reach IPv6 destinations: IPv6 is not redirected, and goes as it did before',
  reject: 'no HAG can reach IPv6 destinations: IPv6 connections are refused (on_hag_down)',
}

const isEndpointDeletion = ({ text }: NetworkPlan['steps'][number]) => /^ip mptcp endpoint delete /.test(text)

/** Where connections may begin: over the WANs in use, where one of them has the family and works. */
function wanted(paths: readonly WanPath[], used: ReadonlySet<string>): readonly WanPath[] {
  const inUse = paths.filter(({ wan }) => used.has(wan))
  return inUse.some(({ usable }) => usable) ? inUse : paths
}

/**
 * Addresses that are to have no endpoint: of WANs that are lost or not in use, as long as another one is usable. While none is, those that
 * have none get none: what joined over a silent WAN would try again after longer and longer pauses, and on its return the connections would
 * have to leave the WAN that was lost last before they are there.
 */
function unwanted(paths: readonly WanPath[], used: ReadonlySet<string>, now: ReadonlySet<string>): string[] {
  const kept = wanted(paths, used).filter(({ lost }) => !lost)
  if (!kept.some(({ usable }) => usable)) return paths.flatMap(({ bind }) => (now.has(bind) ? [bind] : []))
  return paths.filter((path) => !kept.includes(path)).map(({ bind }) => bind)
}
