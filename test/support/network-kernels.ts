/** The same tests of the network set-up on the model and on the real kernel, with both flavours of iptables. */
import { execFileSync } from 'node:child_process'
import t, { type Test } from 'tap'
import { Network } from '../../src/network/network.js'
import { observe } from '../../src/network/observe.js'
import { needsRoot, type Scope } from './namespaces.js'
import { addForeign, fakeWorld, furnish, netnsWorld, type Snapshot, snapshot, type World } from './network-world.js'

function lacks(program: string): string | false {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`])
    return false
  } catch {
    return `${program} is not installed`
  }
}

/** `stride`: every how many steps one is made to fail; the model takes them all. */
const worlds: [name: string, make: (scope: Scope) => Promise<World>, stride: number, skip: string | false][] = [
  ['model', async () => fakeWorld(), 1, false],
  ['kernel, iptables-nft', (scope) => netnsWorld(scope, 'nft'), 4, needsRoot || lacks('iptables-nft')],
  ['kernel, iptables-legacy', (scope) => netnsWorld(scope, 'legacy'), 8, needsRoot || lacks('iptables-legacy')],
]

/** Furnished, with things of others in it; `before`: without anything of ours. */
type MakeWorld = (scope: Scope) => Promise<World & { network: Network; before: Snapshot }>

export function onEveryKernel(tests: (t: Test, world: MakeWorld, stride: number) => Promise<void>): void {
  for (const [name, make, stride, skip] of worlds) {
    const world: MakeWorld = async (scope) => {
      const made = await make(scope)
      await furnish(made)
      await addForeign(made.kernel)
      return { ...made, network: new Network(made.kernel), before: await snapshot(made.kernel) }
    }
    t.test(name, { skip }, (t) => tests(t, world, stride))
  }
}

export const addressesOf = async (kernel: World['kernel']) =>
  (await observe(kernel)).endpoints.filter(({ isOurs }) => isOurs).map(({ address }) => address)
