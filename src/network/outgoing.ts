/** Asks the kernel where it would send packets to the HAGs, because rules and routes of others may come before ours. */
import * as z from 'zod/mini'
import { type Family, familyOf, type SocketAddress } from '../base/address.js'
import { joinsByOwnDevice } from '../base/kernel-version.js'
import type { GatewayConfig } from '../config/schema.js'
import { readJson } from './kernel/json.js'
import type { Kernel } from './kernel/kernel.js'
import { ruleByMark } from './marks.js'
import type { Entry, ForeignRule, Observed, Outside } from './state.js'

/** The route by which the kernel sends a packet. */
interface Outgoing {
  device: string | undefined
  /** The table of the route; undefined for the main one. */
  table: string | undefined
}

interface Question {
  destination: SocketAddress
  /** A WAN's address and device. Default: none, as for any program of this machine. */
  from?: { source: string; device: string }
}

const routeJson = z.object({
  dev: z.optional(z.string()),
  table: z.optional(z.string()),
  nexthops: z._default(z.array(z.object({ dev: z.optional(z.string()) })), []),
})

/** The answer to each question; undefined if there is no route. */
async function ask(
  kernel: Kernel,
  family: Family,
  questions: readonly Question[],
  mark: number | undefined,
): Promise<(Outgoing | undefined)[]> {
  if (questions.length === 0) return []
  // Without `fibmatch`, if there is no route by the asked device, the kernel assumes that the destination is on its link.
  const oif = (device: string) => (joinsByOwnDevice() ? ['oif', device] : [])
  const lines = questions.map(({ destination: { address, port }, from }) =>
    [
      ...['route get fibmatch', address, ...(from === undefined ? [] : ['from', from.source, ...oif(from.device)])],
      ...['ipproto tcp dport', port, ...(mark === undefined ? [] : ['mark', mark])],
    ].join(' '),
  )
  const argv = ['ip', `-${family}`, '-N', '-j', '-force', '-batch', '-']
  const { stdout, stderr } = await kernel.run(argv, `${lines.join('\n')}\n`)
  const failed = new Set([...stderr.matchAll(/^Command failed .*:(\d+)$/gm)].map(([, line]) => Number(line)))
  const answers = stdout.split('\n').filter((line) => line.trim() !== '')
  return questions.map(({ from }, at) => {
    const [route] = failed.has(at + 1) ? [] : readJson(routeJson, answers.shift(), 'route')
    if (route === undefined) return undefined
    const [first] = route.nexthops
    const hop = route.nexthops.find(({ dev }) => dev === from?.device) ?? first
    return { device: route.dev ?? hop?.dev, table: route.table }
  })
}

/** A public address that nobody has a reason to route specially (RFC 5737). */
const anybody: SocketAddress = { address: '192.0.2.1', port: 443 }

/**
 * Asks for each WAN's address that has its rule and each HAG of its family; and for this machine's own traffic, which may leave by a VPN
 * instead of a WAN.
 */
export async function lookOutside(
  kernel: Kernel,
  config: GatewayConfig,
  observed: Facts,
  hags: readonly SocketAddress[] = configured(config),
): Promise<Outside> {
  const astray = new Map<string, string>()
  const notes: string[] = []
  for (const family of observed.families) {
    const targets = hags.filter(({ address }) => familyOf(address) === family)
    /** The address has its rule, and the rule's table a default route by the device. Before that there is nothing to ask. */
    const isSetUp = (address: string, device: string) =>
      observed.rules.some(({ spelling }) => {
        const table = spelling.startsWith(`from ${address} `) ? / lookup (\d+) /.exec(spelling)?.[1] : undefined
        return table !== undefined && observed.routes.some(isDefaultBy(family, device, table))
      })
    const from = config.wans.flatMap(({ interface: device }) => {
      const { addresses = [] } = observed.interfaces.find(({ name }) => name === device) ?? {}
      return addresses
        .filter((one) => one.family === family && isSetUp(one.address, device))
        .map(({ address }) => ({ source: address, device }))
    })
    const questions = from.flatMap((one) => targets.map((destination) => ({ destination, from: one })))
    const others = family === 4 ? [{ destination: anybody }] : []
    const answers = await ask(kernel, family, [...questions, ...others], config.mark)
    for (const one of from) {
      const troubles = targets.map(({ address }) => troubleOf(answers.shift(), address, one, observed))
      const [trouble] = troubles
      if (trouble !== undefined && troubles.every((each) => each !== undefined)) astray.set(one.source, trouble)
    }
    const [unbound] = answers
    if (unbound !== undefined) notes.push(...noteOn(unbound, config, observed))
  }
  const caught = await ruleByMark(kernel, config, observed)
  if (caught !== undefined) {
    notes.push(
      `the rule "${caught.rule.text}" is in front of ours, and ${caught.setter} sets such marks, which may lead what goes to the HAGs to another WAN or nowhere: ${moveRules}`,
    )
  }
  return { astray, notes }
}

const isDefaultBy =
  (family: Family, device: string, table: string) =>
  ({ family: of, spelling }: Entry) =>
    of === family &&
    spelling.startsWith('default ') &&
    spelling.includes(` dev ${device} `) &&
    spelling.endsWith(` table ${table}`)

const configured = ({ hags }: GatewayConfig): SocketAddress[] =>
  hags.flatMap(({ address, port = 1080 }) => (address === undefined ? [] : [{ address, port }]))

type Facts = Omit<Observed, 'outside'>

function troubleOf(
  answer: Outgoing | undefined,
  hag: string,
  { source, device }: { source: string; device: string },
  { otherRules }: Facts,
): string | undefined {
  const rules = otherRules.filter(({ family }) => family === familyOf(source))
  const what = `what goes from ${source} to HAG ${hag}`
  if (answer?.device === undefined) return `the kernel has no way for ${what}${because(rules, undefined)}`
  if (answer.device !== device) return `${what} would leave by ${answer.device}${because(rules, answer.table)}`
  return undefined
}

const moveRules = 'give it a higher number than ours, or set "rule_priority" to a lower one'

/** The rule that led there: the first one for that table or, without a table, the first one that refuses. */
function because(rules: readonly ForeignRule[], table: string | undefined): string {
  const rule = rules.find((one) => (table === undefined ? one.isRefusal : one.table === table))
  if (rule !== undefined) return `, because of the rule "${rule.text}": ${moveRules}`
  return table === undefined ? '' : `, because of table ${table}`
}

function noteOn({ device, table }: Outgoing, { wans, on_hag_down: onHagDown }: GatewayConfig, { otherRules }: Facts): string[] {
  // The main table's case is named elsewhere.
  if (device === undefined || table === undefined || wans.some((wan) => wan.interface === device)) return []
  const rule = otherRules.find((one) => one.table === table)
  if (rule === undefined) return []
  const clear =
    onHagDown === 'direct' ? ', and straight to its servers where no HAG answers (on_hag_down: reject forbids that)' : ''
  return [
    `the rule "${rule.text}" leads what this machine sends over ${device}, which is no WAN: TCP of the LAN goes around it, over the WANs to the HAGs${clear}`,
  ]
}
