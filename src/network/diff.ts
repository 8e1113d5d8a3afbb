/** From what is to what should be: a pure function. Adds come before deletes, and each path is complete before traffic is sent into it. */
import type { Family } from '../shared/address.js'
import { diffChain, noChain } from './kernel/firewall.js'
import { diffEndpoints, limitStep } from './kernel/mptcp.js'
import { diffDefault, diffRoutes } from './kernel/route.js'
import { diffRules } from './kernel/rule.js'
import { diffSysctls } from './kernel/sysctl.js'
import {
  type Chain,
  type Change,
  type Desired,
  type Entry,
  type Held,
  isHeld,
  joinHeld,
  type Observed,
  type Saved,
} from './state.js'

const families: Family[] = [4, 6]

export function diff(observed: Observed, desired: Desired): Change {
  const sysctl = diffSysctls(observed.sysctls, observed.saved.sysctls, desired.sysctls)
  const limit = diffLimit(observed, desired)
  // One family after the other: commands of one family go through a single process.
  const paths = families.map((family) => {
    const ofFamily = <Kind extends Entry>(entries: readonly Kind[]) => entries.filter((one) => one.family === family)
    const routes = diffRoutes(ofFamily(observed.routes), ofFamily(desired.routes))
    const rules = diffRules(ofFamily(observed.rules), ofFamily(desired.rules))
    const main = diffDefault(family, ofFamily(observed.defaults), ofFamily(desired.defaults))
    return { add: [...routes.add, ...rules.add, ...main.add], remove: [...main.remove, ...rules.remove, ...routes.remove] }
  })
  const endpoints = diffEndpoints(observed.endpoints, desired.endpoints)
  const redirect = (on: boolean) =>
    families
      .filter((family) => (desired.chains[family] !== undefined) === on)
      .flatMap((family) => diffChain(family, observed.chains[family], desired.chains[family]))
  const steps = [
    ...[...sysctl.set, ...limit.set, ...paths.flatMap(({ add }) => add), ...endpoints.add, ...redirect(true)],
    ...[...redirect(false), ...endpoints.remove, ...paths.flatMap(({ remove }) => remove), ...limit.restore, ...sysctl.restore],
  ]
  return {
    steps,
    endpoints: endpoints.after,
    chains: Object.fromEntries(families.flatMap((family) => chainAfter(family, observed, desired))),
    savedMeanwhile: saved(sysctl.meanwhile, joinHeld(limit.before, limit.after)),
    savedAfter: saved(sysctl.after, limit.after),
  }
}

function chainAfter(family: Family, observed: Observed, desired: Desired): [Family, Chain][] {
  // A family without a nat table stays without a key.
  return observed.chains[family] === undefined ? [] : [[family, desired.chains[family] ?? noChain]]
}

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
