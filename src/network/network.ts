/** The control path's door: say what should be, then make it so. */
import type { GatewayConfig } from '../config/schema.js'
import { carryOut, carryOutAsFarAsPossible } from './apply.js'
import { desired } from './desired.js'
import { diff } from './diff.js'
import type { Kernel } from './kernel.js'
import { observe } from './observe.js'
import { nothing, type Plan, type Step } from './state.js'

export { systemKernel } from './command.js'
export type { Kernel } from './kernel.js'
export type { Plan, Step, WanAddresses } from './state.js'

export interface NetworkOptions {
  /** False: everything but the redirect rules, for the time in which connections drain. Default true. */
  redirect?: boolean
  /** True: a WAN that cannot be used is left out with a note, which a running gateway lives with. Default false: it is an error. */
  tolerant?: boolean
  /** WANs that have a link but carry nothing: they keep their routes, for probes, and lose their endpoints, so that connections leave. */
  lost?: ReadonlySet<string>
}

export class Network {
  constructor(private readonly kernel: Kernel) {}

  /** What `apply` would do; changes nothing. Rejects where `apply` would before its first step. */
  async plan(config: GatewayConfig, options: NetworkOptions = {}): Promise<Plan> {
    return (await this.prepare(config, options)).plan
  }

  /**
   * Makes it so and returns what it did. Rejects with a BondsocksError (exit code 1): nothing changed where the machine is not fit
   * (`NOT_ROOT`, `NO_IPROUTE2`, `NO_IPTABLES`, `NO_NAT`, `NO_MPTCP`, `WAN_UNUSABLE`); rolled back where a step failed.
   */
  async apply(config: GatewayConfig, options: NetworkOptions = {}): Promise<Plan> {
    const { plan, change, observed } = await this.prepare(config, options)
    await carryOut(this.kernel, change, observed.saved)
    return plan
  }

  /** Takes away all that is ours, found by our ranges and names, and puts former values back; also after a kill -9. */
  async remove(): Promise<Step[]> {
    const observed = await observe(this.kernel, { lenient: true })
    const change = diff(observed, nothing)
    await carryOutAsFarAsPossible(this.kernel, change)
    return change.steps
  }

  private async prepare(config: GatewayConfig, options: NetworkOptions) {
    const observed = await observe(this.kernel)
    const target = desired(config, observed, options)
    const change = diff(observed, target)
    return { observed, change, plan: { steps: change.steps, wans: target.wans, notes: target.notes } satisfies Plan }
  }
}
