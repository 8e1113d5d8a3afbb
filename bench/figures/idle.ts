/** Memory of a redirector that has just started, and what an idle connection adds to it. */
import { readFileSync } from 'node:fs'
import { settle } from '../../test/support/hybrid.js'
import { countDescriptors, privateMemory } from '../../test/support/proc.js'
import type { Figure } from './figure.js'

const residentMemory = (pid: number) =>
  Number(/^Rss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]) * 1024

export const idle: Figure = {
  name: 'idle',
  lab: 'unshaped',
  metrics: [
    { id: 'resident', label: 'resident memory at start', unit: 'MB', atMost: () => 64 },
    { id: 'private', label: 'private memory at start', unit: 'MB', atMost: () => 20 },
    { id: 'idle-memory', label: 'private memory per idle connection', unit: 'bytes', atMost: () => 1000 },
    // A pipe or two may be out of its pool at the moment of counting.
    { id: 'idle-fds', label: 'descriptors per idle connection', unit: '', atMost: () => 2.02 },
  ],
  async measure(bed, { pid }) {
    if (pid === undefined) return {}
    // More would not fit into the usual limit of 20,000 descriptors, with what bondsocks keeps free.
    const connections = bed.quick ? 2000 : 5000
    const start = { resident: residentMemory(pid) / 1e6, private: privateMemory(pid) / 1e6 }
    await bed.load('short', 200, 16)
    const descriptors = await settled(pid)
    const memory = privateMemory(pid)
    const holder = bed.startClient('hold', connections)
    try {
      await holder.waitFor(/held/, 30_000)
      await settled(pid)
      return {
        ...start,
        'idle-memory': (privateMemory(pid) - memory) / connections,
        'idle-fds': (countDescriptors(pid) - descriptors) / connections,
      }
    } finally {
      await holder.end('SIGKILL')
      await settle(
        () => countDescriptors(pid),
        (now) => now < descriptors + connections / 10,
        20_000,
      )
    }
  },
}

/** The count of descriptors once it has stood still for so long: on a busy machine the redirector lags behind its clients. */
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
