/** Sysctls: what to set, what to keep of the former values, and how to put them back exactly. */
import { type Held, isHeld, joinHeld, type Sysctls } from '../state.js'
import { type Step, type SysctlWrite, step } from '../step.js'

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

/**
 * What we changed a value to, unless somebody else has changed it since. An interface that came later has the value that we gave to
 * `default`; interfaces that were there before are known by their forwarding, which is always saved.
 */
export function heldOf(path: string, { sysctls, saved }: { sysctls: Sysctls; saved: Record<string, Held<string>> }) {
  const [, family, name] = /^net\/(ipv[46])\/conf\/([^/]+)\//.exec(path) ?? []
  const cameLater = saved[path] === undefined && saved[`net/${family}/conf/${name}/forwarding`] === undefined
  const held = saved[cameLater ? path.replace(`/conf/${name}/`, '/conf/default/') : path]
  return isHeld(held, sysctls.get(path)) ? held : undefined
}

const isMaster = (path: string) => path === masters[4] || path === masters[6]

/** The writes that lead from `from` to the `targets`. Values that change with them follow, also for interfaces that came later. */
function writesTo(targets: Sysctls, from: Sysctls): SysctlWrite[] {
  const values = new Map(from)
  const writes: SysctlWrite[] = []
  const write = (path: string, value: string) => {
    if (values.get(path) === value) return
    writes.push({ sysctl: path, value })
    for (const [other, changed] of consequences(path, value, values.keys())) values.set(other, changed)
  }
  for (const [path, value] of targets) if (isMaster(path)) write(path, value)
  for (const [path, value] of targets) write(path, value)
  return writes
}

export interface SysctlChange {
  set: Step[]
  restore: Step[]
  /** The values during the steps, with every value on the way and back: whenever we are killed, the value found is known to be ours. */
  meanwhile: Record<string, Held<string>>
  /** The values after the steps. */
  after: Record<string, Held<string>>
}

/** `wanted` is set in its order, and must not contain paths that the kernel lacks. */
export function diffSysctls(current: Sysctls, saved: Record<string, Held<string>>, wanted: Sysctls): SysctlChange {
  const covered = new Set([...wanted].flatMap(([path, value]) => [...consequences(path, value, current.keys()).keys()]))
  // An interface that went away took its values along; a new one has the value that we gave to `default`, even if no pass has seen it yet.
  const kept = new Set([...Object.keys(saved), ...current.keys()])
  const still = [...kept].flatMap((path): [string, Held<string>][] => {
    const held = heldOf(path, { sysctls: current, saved })
    return held === undefined ? [] : [[path, held]]
  })
  const after = Object.fromEntries(still.filter(([path]) => covered.has(path)))

  const values = new Map(current)
  const passed: [path: string, value: string][] = []
  /** A step that can be undone exactly: its undo writes back all values that it may change. */
  const change = (path: string, value: string): Step => {
    const changes = consequences(path, value, values.keys())
    const before = new Map([...changes.keys()].map((other) => [other, values.get(other) ?? value]))
    for (const [other, changed] of changes) values.set(other, changed)
    const undo = writesTo(before, values)
    for (const one of [{ sysctl: path, value }, ...undo]) passed.push(...consequences(one.sysctl, one.value, values.keys()))
    return step('setting', { sysctl: path, value }, ...undo)
  }

  const set: Step[] = []
  for (const [path, value] of wanted) {
    if (values.get(path) === value) continue
    // Also save values that are the same already, because putting others back would change them.
    for (const [other, ours] of consequences(path, value, values.keys())) {
      after[other] = { former: after[other]?.former ?? values.get(other) ?? ours, ours: [ours] }
    }
    set.push(change(path, value))
  }
  const targets = new Map(still.filter(([path]) => !covered.has(path)).map(([path, { former }]) => [path, former]))
  const restore = writesTo(targets, values).map(({ sysctl, value }) => change(sysctl, value))
  const before = Object.fromEntries(still)
  const meanwhile: Record<string, Held<string>> = {}
  for (const path of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const held = joinHeld(before[path], after[path])
    const onTheWay = passed.filter(([other]) => other === path).map(([, value]) => value)
    if (held !== undefined) meanwhile[path] = { ...held, ours: [...new Set([...held.ours, ...onTheWay])] }
  }
  return { set, restore, meanwhile, after }
}
