/** What is done for bonded connections: the proof that they are bonded, joining them again to a WAN, and keeping them alive. */
import { type Family, families } from '../../base/address.js'
import type { Engine } from '../../engine/contract.js'
import type { Emit } from '../../telemetry/events.js'
import { isSameHag, type WanLink } from '../model.js'
import type { Pace } from '../pace.js'
import { type MemberState, withoutHag } from '../wans/bundle.js'
import { BundleWatch } from '../wans/bundle-watch.js'
import { watchKeepalive } from '../wans/keepalive.js'
import { Rejoin } from '../wans/rejoin.js'
import { deviceOf } from './state.js'
import type { Steer } from './steer.js'
import { bondedLinks } from './target.js'

export interface BondingOptions {
  /** From the config; undefined: as often as is affordable. */
  keepaliveSeconds: number | undefined
  engine: Pick<Engine, 'inspectBusy' | 'setKeepalive' | 'countOnly' | 'stats'>
  steer: Pick<Steer, 'state' | 'target' | 'report'>
  pace: Pace
  emit: Emit
}

export class Bonding {
  readonly #options: BondingOptions
  readonly #bundle: BundleWatch
  readonly #rejoins: readonly Rejoin[]

  constructor(options: BondingOptions) {
    const { engine, steer, pace, emit } = options
    this.#options = options
    this.#bundle = new BundleWatch({
      engine,
      pace,
      emit,
      members: () =>
        steer.target.hagFamilies.flatMap((family) =>
          this.#links(family).map(({ wan, bind }) => ({ wan, family, bind, device: deviceOf(steer.state, wan) })),
        ),
      obstacles: () => withoutHag(steer.state.wans, steer.target.hagFamilies),
      isToHag: ({ remote }) => steer.target.hags.some((hag) => isSameHag(hag, remote)),
    })
    this.#rejoins = families.map(
      (family) =>
        new Rejoin({
          engine,
          pace,
          emit,
          paths: () => this.#links(family).map(({ wan, bind }) => ({ wan, bind, rate: this.#rateOf(wan) })),
          remake: (bind) => steer.report({ type: 'endpoint-to-remake', bind }),
        }),
    )
  }

  /** Which WANs connections lacked at the last look. */
  get members(): readonly MemberState[] {
    return this.#bundle.states
  }

  /** Each runs until the signal. */
  run(signal: AbortSignal): Promise<void>[] {
    const { engine, pace, keepaliveSeconds: seconds } = this.#options
    const isMetered = () => families.some((family) => this.#links(family).some(({ metered }) => metered))
    return [
      this.#bundle.run(signal),
      ...this.#rejoins.map((rejoin) => rejoin.run(signal)),
      watchKeepalive({ engine, pace, seconds, isMetered }, signal),
    ]
  }

  #links(family: Family): WanLink[] {
    return bondedLinks(this.#options.steer.target, family)
  }

  #rateOf(wan: string): number {
    const { receivedPerSecond, sentPerSecond } = this.#options.steer.state.rates.get(wan) ?? {
      receivedPerSecond: 0,
      sentPerSecond: 0,
    }
    return receivedPerSecond + sentPerSecond
  }
}
