/** Stands in for the addon. */
import type { EngineOptions, Native } from '../../src/engine/contract.js'
import { FakeEngine } from './fake-engine.js'
import type { FarSide } from './far-side.js'

/** Stands in for the addon; `engines` are those that were made. */
export function fakeNative(far: FarSide = {}, unavailable?: string) {
  const engines: FakeEngine[] = []
  const native: Pick<Native, 'Engine' | 'mptcpUnavailable' | 'routeTo' | 'refusedOptions'> = {
    Engine: class extends FakeEngine {
      constructor(options: EngineOptions) {
        super(options, far)
        engines.push(this)
      }
    },
    mptcpUnavailable: () => unavailable,
    refusedOptions: () => [],
    routeTo: () => 'unicast',
  }
  return { native, engines }
}
