/** Sysctls: what to set, what to keep of the former values, and how to put them back exactly. */
import { type Action, type Held, type Step, type Sysctls, step } from '../state.js'

const forwarding = /^net\/ipv([46])\/conf\/[^/]+\/forwarding$/
const masters = { 4: 'net/ipv4/ip_forward', 6: 'net/ipv6/conf/all/forwarding' }

/**
 * All that changes when one sysctl is written, itself included. Switching forwarding resets the value of every interface, and in IPv4 sets
 * conf/all/accept_redirects to the contrary (inet_forward_change, addrconf_fixup_forwarding in the kernel).
 */
export function consequences(path: string, value: string, all: Iterable<string>): Map<string, string> {
  const family = path === masters[4] ? '4' : path === masters[6] ? '6' : undefined
  const changes = new Map([[path, value]])
  for (const other of all) {
    if (family !== undefined && other.match(forwarding)?.[1] === family) changes.set(other, value)
    if (family === '4' && other === 'net/ipv4/conf/all/accept_redirects') changes.set(other, value === '0' ? '1' : '0')
  }
  return changes
}

const isMaster = (path: string) => path === masters[4] || path === masters[6]

/** The writes that lead from `from` to the `targets`; what they would change besides is put back too. */
function writesTo(targets: Sysctls, from: Sysctls): Action[] {
  const values = new Map(from)
  const wanted = new Map(targets)
  const writes: Action[] = []
  const write = (path: string, value: string) => {
    if (values.get(path) === value) return
    writes.push({ sysctl: path, value })
    for (const [other, changed] of consequences(path, value, values.keys())) {
      if (!wanted.has(other)) wanted.set(other, values.get(other) ?? changed)
      values.set(other, changed)
    }
  }
  for (const [path, value] of targets) if (isMaster(path)) write(path, value)
  for (const [path, value] of wanted) write(path, value)
  return writes
}

export interface SysctlChange {
  set: Step[]
  restore: Step[]
  /** What stays changed, and what is put back by `restore`. */
  held: Record<string, Held<string>>
  released: Record<string, Held<string>>
}

/** `wanted` in the order in which it is to be set. Paths that the kernel lacks must not be in it. */
export function diffSysctls(current: Sysctls, saved: Record<string, Held<string>>, wanted: Sysctls): SysctlChange {
  const covered = new Set([...wanted].flatMap(([path, value]) => [...consequences(path, value, current.keys()).keys()]))
  // Whoever changed a value after us owns it now; an interface that went away took its values along.
  const still = Object.entries(saved).filter(([path, { ours }]) => current.get(path) === ours)
  const held = Object.fromEntries(still.filter(([path]) => covered.has(path)))
  const released = Object.fromEntries(still.filter(([path]) => !covered.has(path)))

  const values = new Map(current)
  const set: Step[] = []
  for (const [path, value] of wanted) {
    if (values.get(path) === value) continue
    const before = new Map(values)
    for (const [other, ours] of consequences(path, value, current.keys())) {
      if (before.get(other) === ours) continue
      held[other] = { former: held[other]?.former ?? before.get(other) ?? ours, ours }
      values.set(other, ours)
    }
    const touched = new Map([...before].filter(([other, former]) => values.get(other) !== former))
    set.push(step({ sysctl: path, value }, ...writesTo(touched, values)))
  }

  const targets = new Map(Object.entries(released).map(([path, { former }]) => [path, former]))
  const restore = writesTo(targets, values).map((write) => {
    if (!('sysctl' in write)) return step(write)
    const former = new Map(values)
    const changes = consequences(write.sysctl, write.value, values.keys())
    for (const [path, value] of changes) values.set(path, value)
    const touched = new Map([...former].filter(([path, value]) => values.get(path) !== value))
    return step(write, ...writesTo(touched, values))
  })
  return { set, restore, held, released }
}
