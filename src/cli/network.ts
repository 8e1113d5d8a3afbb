/** What `plan` and `apply` do with a config of either kind. */
import { loadEither } from '../config/load.js'
import type { NetworkPlan } from '../network/state.js'

export async function planOrApply(verb: 'plan' | 'apply', file: string): Promise<NetworkPlan> {
  const { kind, config } = loadEither(file)
  const { Network, systemKernel } = await import('../network/network.js')
  if (kind === 'gateway') return new Network(systemKernel())[verb](config)
  const { HagNetwork } = await import('../network/hag-network.js')
  const { isHagHere } = await import('../network/lock.js')
  return new HagNetwork(systemKernel())[verb](config, { isAlone: !(await isHagHere()) })
}
