/** What must never be, whatever has happened to WANs and HAGs; and what must be once all is well again. */
import { families } from '../../src/base/address.js'
import { isSameHag, isUsable, type Path } from '../../src/gateway/model.js'
import { isRefused } from '../../src/gateway/steering/admissions.js'
import type { Hub } from '../../src/gateway/steering/hub.js'
import { hasEndpoint } from '../../src/gateway/steering/target.js'
import type { record } from './steering-record.js'
import type { Scenario, Step } from './steering-world.js'

const textOf = ({ hag, bind, protocol, pipelined, patienceMs }: Path) =>
  `${hag?.address ?? 'direct'} ${bind} ${protocol} ${pipelined} ${patienceMs}`
const destinations = { 4: '198.51.100.7', 6: '2001:db8:9::7' }

export function faultsOf({ steer: { state, target }, pathTable }: Hub, { onHagDown }: Scenario): string[] {
  const faults: string[] = []
  const must = (isSo: boolean, what: string) => {
    if (!isSo) faults.push(what)
  }
  const { hagPaths, direct, preparable } = target.paths
  for (const family of families) {
    const links = target.links[family]
    const usable = links.filter(isUsable)
    const inUse = usable.filter(({ wan }) => state.roles.inUse.has(wan))
    const hasOne = ({ bind }: { bind: string }) => hasEndpoint(target, bind)
    const isToHaveOne = (link: { bind: string }) => link.bind === target.remaking || hasOne(link)
    must(usable.length === 0 || usable.some(isToHaveOne), `IPv${family}: a WAN that works keeps its endpoint`)
    must(
      usable.length === 0 || !links.some((link) => link.state === 'down' && hasOne(link)),
      `IPv${family}: what is lost has none`,
    )
    must(inUse.every(isToHaveOne), `IPv${family}: each WAN that works and is in use has one`)
    must(
      inUse.length === 0 || !usable.some((link) => hasOne(link) && !inUse.includes(link)),
      `IPv${family}: a spare one has none`,
    )
    const best = links.find(({ wan }) => wan === target.best[family])
    must(inUse.length === 0 || (best !== undefined && best.state !== 'down'), `IPv${family}: the best WAN works`)
    must(links.length === 0 || direct[family].length > 0, `IPv${family}: there is a path without a HAG`)
    const used = pathTable.pathsTo(destinations[family]).map(textOf)
    const wanted = [...hagPaths, ...(onHagDown === 'direct' ? direct[family] : [])].map(textOf)
    must(JSON.stringify(used) === JSON.stringify(wanted), `IPv${family}: connections take the paths of the target`)
  }
  const isToUsable = ({ hag }: Path) => target.usableHags.some((one) => hag !== undefined && isSameHag(one, hag))
  const worksOver = ({ bind }: Path) =>
    families.some((family) => target.links[family].some((link) => link.bind === bind && isUsable(link)))
  const isGood = (path: Path) => isToUsable(path) && worksOver(path)
  const [first] = hagPaths
  must(first === undefined || isGood(first) || !hagPaths.some(isGood), 'the first path works if one does')
  must(onHagDown === 'reject' || hagPaths.every(isToUsable), 'no path to a HAG that is down')
  must(!hagPaths.some(({ hag, bind }) => isRefused(state.admissions, hag, bind)), 'no path to a HAG that refuses us there')
  must(new Set(hagPaths.map(textOf)).size === hagPaths.length, 'no path twice')
  must(
    preparable.every((path) => isGood(path) && path.hag === preparable[0]?.hag),
    'connections are prepared to one HAG that works',
  )
  return faults
}

/** All is well again, for two minutes. What costs money is asked once a minute. */
export const peace = ({ wans, hags }: Scenario): Step[] => [
  ...wans.map((wan): Step => {
    const answers = 'all'
    const mptcp = 'mptcp'
    return { type: 'wan', wan, change: { answers, mptcp, isThere: true, isFull: false, isNarrow: false, rate: 0, rttMs: 20 } }
  }),
  { type: 'look' },
  ...hags.map((_, hag): Step => ({ type: 'hag', hag, change: { answers: 'yes', request: 'works' } })),
  { type: 'wait', ms: 130_000 },
]

export function faultsAtPeace({ hub, deeds, failures, lines, endedAt }: Awaited<ReturnType<typeof record>>): string[] {
  const { state, target } = hub.steer
  const faults = [...failures.map((failure) => `failure ${(failure as Error).stack}`)]
  faults.push(...lines.filter((line) => line.startsWith('error')))
  if (target.remaking !== undefined) faults.push('an endpoint is still to be made anew')
  for (const { wan, family, address, health } of state.links) {
    const isAsked = state.hags.some(({ hag }) => hag.address.includes(':') === (family === 6))
    if (isAsked && address !== undefined && health.state !== 'up') faults.push(`${wan} IPv${family} is ${health.state}`)
  }
  for (const { hag, health } of state.hags) if (health.state === 'down') faults.push(`HAG ${hag.address} is down`)
  for (const family of families) {
    const inUse = target.links[family].filter((link) => isUsable(link) && state.roles.inUse.has(link.wan))
    const [best] = state.config.wans.filter(({ name }) => inUse.some(({ wan }) => wan === name))
    if (best !== undefined && target.best[family] !== best.name)
      faults.push(`the best WAN for IPv${family} is ${target.best[family]}`)
  }
  const late = deeds.filter(({ at, deed }) => at > endedAt - 30_000 && deed !== 'look-for-stranded')
  return [...faults, ...late.map(({ deed }) => `still: ${deed}`)]
}
