/** The only loader of the addon. */
import { createRequire } from 'node:module'
import type { Native } from './contract.js'
import { type BoundEngine, type BoundOptions, engineOf } from './wire.js'

// Both src/native/ and dist/chunks/ lie two folders below the package's root.
const addon = createRequire(import.meta.url)('../../build/bondsocks.node') as Omit<Native, 'Engine'> & {
  Engine: new (options: BoundOptions) => BoundEngine
}

export const native: Native = { ...addon, Engine: engineOf(addon.Engine) }
