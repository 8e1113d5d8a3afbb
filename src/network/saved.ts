/** The state file: what `remove` puts back. Reads as much of it as a power cut or a full disk has left. */
import * as z from 'zod/mini'
import { isHeld, type Observed, type Saved, type Sysctls } from './state.js'
import { textOf } from './step.js'

const held = <Value extends z.ZodMiniType>(value: Value) => z.object({ former: value, ours: z.array(value) })
const endpoint = z.object({
  address: z.string(),
  id: z.number(),
  device: z.optional(z.string()),
  port: z.optional(z.number()),
  flags: z.array(z.string()),
})
const schema = z.object({
  sysctls: z.record(z.string(), held(z.string())),
  subflows: z.optional(held(z.number())),
  endpoints: z.optional(z.array(endpoint)),
  ownIds: z.optional(z.array(z.number())),
})

export interface Stored {
  saved: Saved
  /** True if not all of it could be read. */
  isDamaged: boolean
}

export const nothingSaved: Saved = { sysctls: {}, subflows: undefined, endpoints: [], ownIds: undefined }

export function parseSaved(text: string | undefined): Stored {
  if (text === undefined) return { saved: nothingSaved, isDamaged: false }
  const whole = schema.safeParse(jsonOf(text))
  if (whole.success) return { saved: savedOf(whole.data), isDamaged: false }
  const objects = [...text.matchAll(/(?:"(net\/[^"]+|subflows)":\s*)?(\{[^{}]*\})/g)].map(([, name, value = '']) => ({
    name,
    value: jsonOf(value),
  }))
  const readable = <Value>(type: z.ZodMiniType<Value>, value: unknown): Value[] => {
    const parsed = type.safeParse(value)
    return parsed.success ? [parsed.data] : []
  }
  const [subflows] = objects.flatMap(({ name, value }) => (name === 'subflows' ? readable(held(z.number()), value) : []))
  const endpoints = objects.flatMap(({ name, value }) => (name === undefined ? readable(endpoint, value) : []))
  const sysctls = objects.flatMap(({ name = '', value }) =>
    name.startsWith('net/') ? readable(held(z.string()), value).map((one) => [name, one] as const) : [],
  )
  return { saved: savedOf({ sysctls: Object.fromEntries(sysctls), subflows, endpoints }), isDamaged: true }
}

function savedOf({ sysctls, subflows, endpoints = [], ownIds }: z.infer<typeof schema>): Saved {
  return {
    sysctls,
    subflows,
    ownIds,
    endpoints: endpoints.map(({ device, port, ...one }) => ({ ...one, device, port, isOurs: false })),
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export function textOfSaved({ sysctls, subflows, ownIds, endpoints }: Saved): string {
  const theirs = endpoints.length > 0 ? endpoints.map(({ isOurs: _, ...one }) => one) : undefined
  // Short parts come first, because a cut loses the end.
  return `${JSON.stringify({ subflows, ownIds, endpoints: theirs, sysctls }, null, 2)}\n`
}

/** The values that we set, as far as they are known without a config. */
const ours: [path: RegExp, value: RegExp][] = [
  [/^net\/mptcp\/blackhole_timeout$/, /^0$/],
  [/^net\/ipv4\/tcp_mtu_probing$/, /^1$/],
  [/^net\/mptcp\/close_timeout$/, /^10$/],
  [/^net\/ipv4\/tcp_rmem$/, / 524288 /],
  [/^net\/ipv4\/conf\/(?!all)[^/]+\/rp_filter$/, /^2$/],
  [/^net\/ipv4\/ip_forward$/, /^1$/],
  [/^net\/ipv6\/conf\/all\/forwarding$/, /^1$/],
  [/^net\/ipv6\/conf\/[^/]+\/accept_ra$/, /^2$/],
]

/** A sentence about what may still have our value because the former one is lost. */
export function lossOf({ sysctls, saved, subflows }: Pick<Observed, 'sysctls' | 'saved' | 'subflows'>): string {
  const lost = [...(sysctls as Sysctls)]
    .filter(([path, value]) => saved.sysctls[path] === undefined && ours.some(([name, is]) => name.test(path) && is.test(value)))
    .map(([sysctl, value]) => textOf({ sysctl, value }).replace('sysctl -w ', ''))
  // The kernel's own is 2.
  const limit =
    subflows !== undefined && subflows > 2 && !isHeld(saved.subflows, subflows) ? [`the MPTCP limit of ${subflows} subflows`] : []
  return (
    'the state file below /run/bondsocks was damaged, so the former values of what it does not name any more are lost; ' +
    `these may still be ours: ${[...lost, ...limit].join(', ') || 'none'}; MPTCP endpoints of others that had to go would be missing`
  )
}
