/** From what is to what should be: a pure function. Adds come before deletes, and each path is complete before traffic is sent into it. */
import type { Family } from '../shared/address.js'
import { diffChain } from './kernel/firewall.js'
import { diffEndpoints, limitStep } from './kernel/mptcp.js'
import { diffRoutes } from './kernel/route.js'
import { diffRules } from './kernel/rule.js'
import { diffSysctls } from './kernel/sysctl.js'
import type { Change, Desired, Held, Observed, Saved, Step } from './state.js'

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
  const held: Saved = { sysctls: sysctl.held, ...(limit.held && { subflows: limit.held }) }
  const meanwhile = limit.held ?? limit.released
  return {
    steps,
    savedMeanwhile: { sysctls: { ...sysctl.released, ...sysctl.held }, ...(meanwhile && { subflows: meanwhile }) },
    savedAfter: held,
  }
}

/** The limit of subflows, kept and put back like a sysctl. */
function diffLimit({ subflows, saved }: Observed, desired: Desired) {
  const none: { set: Step[]; restore: Step[]; held?: Held<number>; released?: Held<number> } = { set: [], restore: [] }
  if (subflows === undefined) return none
  const before = saved.subflows?.ours === subflows ? saved.subflows : undefined
  const ours = desired.subflows
  if (ours === undefined) return before ? { ...none, restore: [limitStep(subflows, before.former)], released: before } : none
  const former = before?.former ?? subflows
  const held = former === ours ? {} : { held: { former, ours } }
  return { ...none, set: subflows === ours ? [] : [limitStep(subflows, ours)], ...held }
}
