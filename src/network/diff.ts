/**
 * The steps from what is to what should be: a pure function. Adds come before deletes, and each path is complete before traffic is sent
 * into it.
 */
import { families } from '../base/address.js'
import { diffCopy } from './kernel/copy.js'
import { diffChain } from './kernel/firewall.js'
import { diffEndpoints, isMade, limitStep } from './kernel/mptcp.js'
import { diffRoutes } from './kernel/route.js'
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
  type KernelChain,
  type KernelEndpoint,
  type NumberedEndpoint,
  type Observed,
  type Saved,
} from './state.js'
import { step } from './step.js'

export function diff(observed: Observed, desired: Desired): Change {
  const sysctl = diffSysctls(observed.sysctls, observed.saved.sysctls, desired.sysctls)
  const limit = diffLimit(observed, desired)
  // One family after the other: commands of one family go through a single process.
  const paths = families.map((family) => {
    const ofFamily = <Kind extends Entry>(entries: readonly Kind[]) => entries.filter((one) => one.family === family)
    const routes = diffRoutes(ofFamily(observed.routes), ofFamily(desired.routes))
    const rules = diffRules(ofFamily(observed.rules), ofFamily(desired.rules))
    return { add: [...routes.add, ...rules.add], remove: [...rules.remove, ...routes.remove] }
  })
  const foreign = diffForeign(observed, desired)
  const endpoints = diffEndpoints(observed.endpoints, desired.endpoints, {
    replace: desired.replaced.now,
    putBack: foreign.putBack,
  })
  const before = observed.endpoints.filter(({ isOurs }) => isOurs)
  const wantedFor = (have: KernelChain) =>
    have.isUsed ? desired.chains.find(({ family, table }) => family === have.family && table === have.table) : undefined
  // The rules that let redirected connections in are added before the redirection, and removed after it.
  const redirect = (on: boolean) =>
    (on ? (['filter', 'nat'] as const) : (['nat', 'filter'] as const)).flatMap((table) =>
      observed.chains
        .filter((one) => one.table === table && (wantedFor(one) !== undefined) === on)
        .flatMap((one) => diffChain(one, wantedFor(one))),
    )
  const steps = [
    ...observed.copies.flatMap((have) =>
      diffCopy(
        have,
        desired.copies.find(({ family }) => family === have.family),
      ),
    ),
    ...[...sysctl.set, ...limit.set, ...paths.flatMap(({ add }) => add), ...endpoints.add, ...redirect(true)],
    ...[...observed.strays.map((command) => step('firewall', command)), ...redirect(false)],
    ...[...endpoints.remove, ...paths.flatMap(({ remove }) => remove), ...limit.restore, ...sysctl.restore],
  ]
  return {
    steps,
    endpoints: endpoints.after,
    chains: observed.chains.map((have) => chainAfter(have, wantedFor(have))),
    savedMeanwhile: saved(sysctl.meanwhile, joinHeld(limit.before, limit.after), foreign.meanwhile, [
      ...before,
      ...endpoints.after,
    ]),
    savedAfter: saved(sysctl.after, limit.after, foreign.after, endpoints.after),
  }
}

function chainAfter(have: KernelChain, wanted: Chain | undefined): KernelChain {
  const { rules, jumps } = wanted ?? { rules: [], jumps: [] }
  // Each of ours is put in front.
  return { ...have, isInFront: true, places: jumps.map(() => 1), exists: wanted !== undefined, rules, jumps }
}

const saved = (
  sysctls: Saved['sysctls'],
  subflows: Saved['subflows'],
  endpoints: KernelEndpoint[],
  own: readonly NumberedEndpoint[],
): Saved => ({
  sysctls,
  subflows,
  endpoints,
  ownIds: own.length > 0 ? [...new Set(own.map(({ id }) => id))].sort() : undefined,
})

/** Somebody else's endpoints: which of them to keep in mind, and which to put back. */
function diffForeign({ endpoints, saved, interfaces }: Observed, { replaced, endpoints: wanted }: Desired) {
  const now = replaced.now.filter(isMade)
  // If somebody made the endpoint again, theirs counts.
  const before = saved.endpoints.filter((one) => !now.some(({ address }) => address === one.address))
  const after = [...before.filter((one) => replaced.before.includes(one)), ...now]
  const isThere = ({ device }: KernelEndpoint) => device === undefined || interfaces.some(({ name }) => name === device)
  const stays = (one: KernelEndpoint) => !one.isOurs && !replaced.now.includes(one)
  const isHeldAgain = ({ address }: KernelEndpoint) =>
    endpoints.some((one) => one.address === address && stays(one)) || wanted.some((one) => one.address === address)
  const putBack = before.filter((one) => !replaced.before.includes(one) && isThere(one) && !isHeldAgain(one))
  return { putBack, meanwhile: [...before, ...now], after }
}

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
