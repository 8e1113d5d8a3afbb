/** From what is to what should be: a pure function. Adds come before deletes, and each path is complete before traffic is sent into it. */
import type { Family } from '../shared/address.js'
import { diffChain } from './kernel/firewall.js'
import { diffEndpoints, limitStep } from './kernel/mptcp.js'
import { diffRoutes } from './kernel/route.js'
import { diffRules } from './kernel/rule.js'
import { diffSysctls } from './kernel/sysctl.js'
import { type Change, type Desired, type Held, isHeld, joinHeld, type Observed, type Saved } from './state.js'

const families: Family[] = [4, 6]

export function diff(observed: Observed, desired: Desired): Change {
  const sysctl = diffSysctls(observed.sysctls, observed.saved.sysctls, desired.sysctls)
  const limit = diffLimit(observed, desired)
  const routes = diffRoutes(observed.routes, desired.routes)
  const rules = diffRules(observed.rules, desired.rules)
  const endpoints = diffEndpoints(observed.endpoints, desired.endpoints)
  const redirect = (on: boolean) =>
    families
      .filter((family) => (desired.chains[family] !== undefined) === on)
      .flatMap((family) => diffChain(family, observed.chains[family], desired.chains[family]))
  const steps = [
    ...[...sysctl.set, ...limit.set, ...routes.add, ...rules.add, ...endpoints.add, ...redirect(true)],
    ...[...redirect(false), ...endpoints.remove, ...rules.remove, ...routes.remove, ...limit.restore, ...sysctl.restore],
  ]
  const paths = new Set([...Object.keys(sysctl.before), ...Object.keys(sysctl.after)])
  const meanwhile = [...paths].map((path) => [path, joinHeld(sysctl.before[path], sysctl.after[path])] as const)
  return {
    steps,
    endpoints: endpoints.after,
    savedMeanwhile: saved(Object.fromEntries(meanwhile.filter(isDefined)), joinHeld(limit.before, limit.after)),
    savedAfter: saved(sysctl.after, limit.after),
  }
}

const isDefined = <Value>(entry: readonly [string, Value | undefined]): entry is readonly [string, Value] =>
  entry[1] !== undefined
const saved = (sysctls: Saved['sysctls'], subflows: Saved['subflows']): Saved => ({ sysctls, ...(subflows && { subflows }) })

/** The limit of subflows, kept and put back like a sysctl. */
function diffLimit({ subflows, saved }: Observed, desired: Desired) {
  const before = isHeld(saved.subflows, subflows) ? saved.subflows : undefined
  const former = before?.former ?? subflows
  const wanted = desired.subflows ?? former
  const steps = subflows === undefined || wanted === undefined || wanted === subflows ? [] : [limitStep(subflows, wanted)]
  const after: Held<number> | undefined =
    former === undefined || wanted === undefined || wanted === former ? undefined : { former, ours: [wanted] }
  return { set: desired.subflows === undefined ? [] : steps, restore: desired.subflows === undefined ? steps : [], before, after }
}
