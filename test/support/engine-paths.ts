/** Engines in processes of their own; a CPE and a HAG for them, with two paths between them. */
import { fileURLToPath } from 'node:url'
import type { EngineEvent, Inspection } from '../../src/engine/contract.js'
import { type Agent, startAgent } from './agent.js'
import type { Setup } from './engine-child.js'
import { connect, createNamespace, type Namespace, type Scope } from './namespaces.js'
import { type Program, start } from './process.js'

const script = fileURLToPath(new URL('engine-child.ts', import.meta.url))

/** Where a program runs: a namespace, or here. */
type Place = Pick<Namespace, 'argv'>
export const here: Place = { argv: (...argv) => argv }
/** With so many descriptors. */
export const hereWith = (descriptors: number): Place => ({ argv: (...argv) => ['prlimit', `--nofile=${descriptors}`, ...argv] })

export const startChild = (scope: Scope, place: Place, setup: Setup): Program =>
  start(scope, place.argv(process.execPath, '--import=tsx', script, JSON.stringify(setup)))
export const portOf = async (child: Program) => Number((await child.waitFor(/listening (\d+)/))[1])
export const events = (child: Program) =>
  [...child.output.matchAll(/^\{(?!"inspections").*"connection":.*\}$/gm)].map(([line]) => JSON.parse(line) as EngineEvent)
export const inspections = (child: Program): Inspection[] => {
  const [last] = [...child.output.matchAll(/^\{"inspections":.*\}$/gm)].at(-1) ?? []
  return last === undefined ? [] : JSON.parse(last).inspections
}

export const echoPort = 7

/** A CPE and a HAG with two paths between them, an echo server on the HAG. */
export async function twoPaths(t: Scope): Promise<{ cpe: Namespace; hag: Namespace; client: Agent }> {
  const cpe = await createNamespace(t, 'cpe')
  const hag = await createNamespace(t, 'hag')
  for (const path of [1, 2]) {
    const device = `wan${path}`
    await connect(
      { namespace: cpe, device, addresses: [`10.0.${path}.1/24`, `2001:db8:${path}::1/64`] },
      { namespace: hag, device, addresses: [`10.0.${path}.2/24`, `2001:db8:${path}::2/64`] },
    )
  }
  const client = await startAgent(t, cpe)
  await (await startAgent(t, hag)).call('echo', echoPort)
  return { cpe, hag, client }
}
