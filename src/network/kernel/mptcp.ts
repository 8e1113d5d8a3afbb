/** MPTCP path manager: endpoints and limits (`ip mptcp`). */
import { type Endpoint, type KernelEndpoint, owned, type Step, step } from '../state.js'

const { first, last } = owned.endpointIds

export const isOurs = ({ id, flags, device }: KernelEndpoint) =>
  // A foreign endpoint without an id of its own may have been numbered into our range; what is none of a WAN's cannot be ours.
  id >= first && id <= last && flags.join() === 'subflow' && device !== undefined

/** Reads `ip -j mptcp endpoint show`: a flag is a key with the value true, present only when set. */
export function parseEndpoints(json: string): KernelEndpoint[] {
  const endpoints = JSON.parse(json || '[]') as ({ address: string; id: number; dev?: string } & Record<string, unknown>)[]
  return endpoints.map((endpoint) => ({
    address: endpoint.address,
    id: endpoint.id,
    device: endpoint.dev,
    flags: Object.keys(endpoint)
      .filter((key) => endpoint[key] === true)
      .sort(),
  }))
}

/** `ip -j mptcp limits` prints plain text: `add_addr_accepted 0 subflows 2 `. */
export function parseSubflowLimit(text: string): number {
  return Number(text.match(/subflows (\d+)/)?.[1] ?? 0)
}

const addCommand = ({ address, device, id }: Endpoint & { id: number }) => ({
  argv: ['ip', 'mptcp', 'endpoint', 'add', address, 'dev', device ?? '', 'id', String(id), 'subflow'],
})
const deleteCommand = ({ id }: { id: number }) => ({ argv: ['ip', 'mptcp', 'endpoint', 'delete', 'id', String(id)] })

/** Endpoints keep the id that they have. `before` must go first: an address, and the last of eight places, can be held only once. */
export function diffEndpoints(have: readonly KernelEndpoint[], want: readonly Endpoint[]) {
  const ours = have.filter(isOurs)
  const taken = new Set(have.map(({ id }) => id))
  const stale = ours.filter((one) => !want.some(({ address, device }) => address === one.address && device === one.device))
  const missing = want.filter(
    ({ address, device }) =>
      !have.some((one) => one.address === address && !stale.includes(one) && (!isOurs(one) || one.device === device)),
  )
  const isFull = have.length + missing.length > owned.count
  const before = stale.filter((one) => isFull || missing.some(({ address }) => address === one.address))
  for (const { id } of before) taken.delete(id)
  const add: Step[] = []
  for (const endpoint of missing) {
    let id: number = last
    while (id >= first && taken.has(id)) id--
    taken.add(id)
    add.push(step(addCommand({ ...endpoint, id }), deleteCommand({ id })))
  }
  const remove = (one: KernelEndpoint) => step(deleteCommand(one), addCommand(one))
  return { add: [...before.map(remove), ...add], remove: stale.filter((one) => !before.includes(one)).map(remove) }
}

export function limitStep(from: number, to: number): Step {
  const set = (subflows: number) => ({ argv: ['ip', 'mptcp', 'limits', 'set', 'subflows', String(subflows)] })
  return step(set(to), set(from))
}
