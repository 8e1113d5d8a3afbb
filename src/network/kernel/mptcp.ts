/** MPTCP path manager: endpoints and limits (`ip mptcp`). */
import * as z from 'zod/mini'
import { familyOf } from '../../base/address.js'
import { type Endpoint, type KernelEndpoint, type NumberedEndpoint, owned } from '../state.js'
import { type Step, step } from '../step.js'
import { readJson } from './json.js'

const { lowest, highest } = owned.endpointIds

/** Whether an endpoint has an id of our range, which others may use, too, and looks as ours do. */
export const looksOurs = ({ id, flags, device }: KernelEndpoint) =>
  id >= lowest && id <= highest && flags.join() === 'subflow' && device !== undefined

/** Whether somebody made the endpoint; the kernel makes implicit ones for subflows that the other end began. */
export const isMade = ({ flags }: KernelEndpoint) => !flags.includes('implicit')

/** Whether its family has none among others. Such one stays: connections survive an outage of their last WAN, but not of their last endpoint. */
export const isLastEndpoint = ({ address }: Endpoint, others: readonly Endpoint[]): boolean =>
  !others.some((one) => familyOf(one.address) === familyOf(address))

const endpoint = z.looseObject({ address: z.string(), id: z.number(), dev: z.optional(z.string()), port: z.optional(z.number()) })

/** Reads `ip -j mptcp endpoint show`: a flag is a key with the value true, present only when set. */
export function parseEndpoints(json = ''): KernelEndpoint[] {
  return readJson(endpoint, json, 'mptcp endpoint').map(({ address, id, dev: device, port, ...flags }) => ({
    address,
    id,
    device,
    port,
    isOurs: false,
    flags: Object.keys(flags)
      .filter((key) => flags[key] === true)
      .sort(),
  }))
}

/** iproute2 prints plain text even with -j, `add_addr_accepted 0 subflows 2 `; one that mends this will write `"subflows":2`. */
export function parseSubflowLimit(text: string): number {
  return Number(text.match(/subflows"?[: ]+(\d+)/)?.[1] ?? 0)
}

const addCommand = ({ address, device, id }: Endpoint & { id: number }) => ({
  argv: ['ip', 'mptcp', 'endpoint', 'add', address, 'dev', device ?? '', 'id', String(id), 'subflow'],
})
const addForeignCommand = ({ address, device, id, flags, port }: KernelEndpoint) => ({
  argv: [
    ...['ip', 'mptcp', 'endpoint', 'add', address, ...(device === undefined ? [] : ['dev', device])],
    ...['id', String(id), ...flags, ...(port === undefined ? [] : ['port', String(port)])],
  ],
})
export const deleteCommand = ({ id }: { id: number }) => ({ argv: ['ip', 'mptcp', 'endpoint', 'delete', 'id', String(id)] })

/** Endpoints keep their ids. Some must be deleted first, because each address and each of the eight places can be used only once. */
export function diffEndpoints(
  have: readonly KernelEndpoint[],
  want: readonly Endpoint[],
  others: { replace: readonly KernelEndpoint[]; putBack: readonly KernelEndpoint[] },
): { add: Step[]; remove: Step[]; after: NumberedEndpoint[] } {
  const isSame = (one: Endpoint, other: Endpoint) => one.address === other.address && one.device === other.device
  const stale = have.filter((one) => one.isOurs && !want.some((other) => isSame(one, other)))
  const staying = have.filter((one) => !others.replace.includes(one))
  const missing = want.filter((one) => !staying.some((other) => isSame(one, other)))
  const isFull = staying.length + missing.length > owned.count
  const first = stale.filter((one) => isFull || missing.some(({ address }) => address === one.address))
  const taken = new Set(staying.filter((one) => !first.includes(one)).map(({ id }) => id))
  const added = missing.map((endpoint) => {
    let id: number = highest
    while (taken.has(id)) id--
    taken.add(id)
    return { ...endpoint, id }
  })
  const add = added.map((endpoint) => step('endpoint-added', addCommand(endpoint), deleteCommand(endpoint)))
  const remove = (one: KernelEndpoint) => step('endpoint-deleted', deleteCommand(one), addCommand(one))
  const foreign = others.replace.map((one) =>
    step('endpoint-deleted', deleteCommand(one), ...(isMade(one) ? [addForeignCommand(one)] : [])),
  )
  const after = [...have.filter((one) => one.isOurs && !stale.includes(one)), ...added]
  const held = new Set([...staying.filter((one) => !stale.includes(one)), ...after].map(({ id }) => id))
  const putBack = others.putBack.map((one) => {
    let { id } = one
    // Somebody else has taken its id.
    if (held.has(id)) for (id = 1; held.has(id); ) id++
    held.add(id)
    return step('endpoint-added', addForeignCommand({ ...one, id }), deleteCommand({ id }))
  })
  return {
    add: [...foreign, ...first.map(remove), ...add],
    remove: [...stale.filter((one) => !first.includes(one)).map(remove), ...putBack],
    after,
  }
}

const limitCommand = (subflows: number) => ({ argv: ['ip', 'mptcp', 'limits', 'set', 'subflows', String(subflows)] })

export function limitStep(from: number, to: number): Step {
  return step('setting', limitCommand(to), limitCommand(from))
}
