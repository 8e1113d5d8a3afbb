/**
 * Finds marks that are set after a packet's route was chosen, and then make the kernel choose it again. Asking the kernel for a route does
 * not show that.
 */
import type { Family } from '../base/address.js'
import type { GatewayConfig } from '../config/schema.js'
import { programOf } from './kernel/firewall.js'
import type { Kernel } from './kernel/kernel.js'
import { nftMarksOfOutput } from './nft-marks.js'
import { type ForeignRule, type Mark, type Observed, owned } from './state.js'

/** A rule in front of ours, and what sets the mark that it looks up by. */
export interface Catch {
  rule: ForeignRule
  setter: string
}

interface SetMark extends Mark {
  setter: string
}

/** The first `ip rule` before ours that matches a mark which a firewall may give to our packets. */
export async function ruleByMark(
  kernel: Kernel,
  { mark: own = 0, rule_priority: first = owned.rulePriority, wans }: GatewayConfig,
  { families, otherRules }: Pick<Observed, 'families' | 'otherRules'>,
): Promise<Catch | undefined> {
  // The rules leave packets alone that have a mark already, as programs do that share the bits of a mark.
  const mayCatch = ({ mark, priority }: ForeignRule) =>
    mark !== undefined && priority < first + wans.length && (mark.value & mark.mask) !== 0 && (own & mark.mask) === 0
  for (const family of families) {
    const rules = otherRules.filter((one) => one.family === family && mayCatch(one))
    const marks = rules.length === 0 ? [] : await marksOfOutput(kernel, family)
    for (const rule of rules) {
      const found = marks.find((one) => rule.mark !== undefined && mayGive(one, rule.mark))
      if (found !== undefined) return { rule, setter: found.setter }
    }
  }
  return undefined
}

/** It sets some of the bits that the rule asks for, and none that the rule excludes. */
const mayGive = (given: Mark, asked: Mark) =>
  (given.value & asked.value & asked.mask) !== 0 && ((given.value ^ asked.value) & asked.mask & given.mask) === 0

async function marksOfOutput(kernel: Kernel, family: Family): Promise<SetMark[]> {
  const program = programOf(family)
  // The legacy flavour creates a table when asked for it, so all are listed. If the program is missing, it has set nothing.
  const listings = [[`${program}-save`, '-t', 'mangle'], [`${program}-legacy-save`]]
  const results = await Promise.all(listings.map((argv) => kernel.run(argv)))
  const byNft = await nftMarksOfOutput(kernel, family)
  return [
    ...results.flatMap(({ stdout }) => marksIn(stdout)).map((mark) => ({ ...mark, setter: 'mangle OUTPUT' })),
    ...byNft.map((mark) => ({ ...mark, setter: `nft's chain ${mark.chain}` })),
  ]
}

/** Rules for other protocols, for other users, and for packets that stay on this machine. */
const isOthers = (rule: string) => / -p (?!tcp )|(?<! !) --[ug]id-owner | -o lo /.test(rule)

function marksIn(saved: string): Mark[] {
  const lines = saved.split('\n')
  const start = lines.indexOf('*mangle')
  const rules = start < 0 ? [] : lines.slice(start, lines.indexOf('COMMIT', start)).filter((line) => !isOthers(line))
  const isIn = (chain: string) => (rule: string) => rule.startsWith(`-A ${chain} `)
  // The loop also visits chains that are added meanwhile.
  const reached = new Set(['OUTPUT'])
  for (const chain of reached) {
    for (const rule of rules.filter(isIn(chain))) reached.add(/ -[jg] (\S+)/.exec(rule)?.[1] ?? '')
  }
  const ofOutput = [...reached].flatMap((chain) => rules.filter(isIn(chain)))
  // A restored mark may have been saved in any chain.
  const setting = ofOutput.some((rule) => rule.includes(' --restore-mark')) ? rules : ofOutput
  return setting.flatMap((rule) => {
    const [, value, mask = '0xffffffff'] = / --set-x?mark (\w+)(?:\/(\w+))?/.exec(rule) ?? []
    return value === undefined ? [] : [{ value: Number(value), mask: Number(mask) }]
  })
}
