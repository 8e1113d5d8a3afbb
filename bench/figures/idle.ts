/** Memory of a redirector that has just started, and what each idle connection adds. */
import { readFileSync } from 'node:fs'
import { descriptorLimit } from '../../src/config/defaults.js'
import { settle } from '../../test/support/hybrid.js'
import { countDescriptors, privateMemory, residentMemory } from '../../test/support/proc.js'
import type { Figure } from './figure.js'

/** Descriptors of a process. bondsocks keeps some free for pipes and for Node. */
const descriptors = { limit: descriptorLimit(readFileSync('/proc/self/limits', 'utf8')), free: 500 }

export const idle: Figure = {
  name: 'idle',
  lab: 'unshaped',
  metrics: [
    { id: 'resident', label: 'resident memory at start', unit: 'MB', max: () => 64 },
    { id: 'private', label: 'private memory at start', unit: 'MB', max: () => 18 },
    { id: 'idle-count', label: 'idle connections held', unit: '' },
    { id: 'idle-added', label: 'private memory above start with them', unit: 'MB', max: () => 10 },
    // All candidates use the same HAG, which keeps memory that it once needed.
    { id: 'hag-idle-added', label: "HAG's private memory above start with them", unit: 'MB' },
    { id: 'idle-memory', label: 'private memory per idle connection', unit: 'bytes', max: () => 1000 },
    // A pipe or two may be out of its pool at the moment of counting.
    { id: 'idle-fds', label: 'descriptors per idle connection', unit: '', max: () => 2.02 },
  ],
  async measure(bed, { pid, descriptorsEach = 2 }) {
    if (pid === undefined) return {}
    const connections = bed.quick ? 2000 : Math.min(10_000, Math.floor((descriptors.limit - descriptors.free) / descriptorsEach))
    const start = { resident: residentMemory(pid), private: privateMemory(pid) }
    await bed.load('short', 200, 16)
    const before = { descriptors: await settled(pid), memory: privateMemory(pid) }
    const holder = bed.startClient('hold', connections)
    try {
      await holder.waitFor(/^held$/m, 60_000)
      const each = ((await settled(pid)) - before.descriptors) / connections
      if (each < 1.99) throw new Error(`of ${connections} connections it holds ${Math.floor((connections * each) / 2)} at most`)
      return {
        resident: start.resident / 1e6,
        private: start.private / 1e6,
        'idle-count': connections,
        'idle-added': (privateMemory(pid) - start.private) / 1e6,
        'hag-idle-added': (privateMemory(bed.hag.pid) - bed.hagStartMemory) / 1e6,
        'idle-memory': (privateMemory(pid) - before.memory) / connections,
        'idle-fds': each,
      }
    } finally {
      await holder.end('SIGKILL')
      await settle(
        () => countDescriptors(pid),
        (now) => now < before.descriptors + connections / 10,
        20_000,
      )
    }
  },
}

/** Waits until the number of descriptors stands still: on a busy machine the redirector lags behind its clients. */
async function settled(pid: number): Promise<number> {
  const stillMs = 1500
  let last = -1
  let since = 0
  return settle(
    () => countDescriptors(pid),
    (now) => {
      if (now !== last) since = performance.now()
      last = now
      return performance.now() - since >= stillMs
    },
    60_000,
  )
}
