/** The entry to the network set-up: plan, apply, remove. */

import { BondsocksError } from '../base/errors.js'
import type { GatewayConfig } from '../config/schema.js'
import { ChangeFailed, carryOut, carryOutAsFarAsPossible, performAll, save } from './apply.js'
import { Arrivals } from './arrivals.js'
import { desired, withRealNames } from './desired/desired.js'
import type { Extra } from './desired/redirection.js'
import { diff } from './diff.js'
import type { Kernel } from './kernel/kernel.js'
import { deleteCommand, isLastEndpoint } from './kernel/mptcp.js'
import { notKept, observe } from './observe.js'
import { lookOutside } from './outgoing.js'
import type { NetworkOptions } from './state.js'
import { type Desired, type NetworkPlan, type NumberedEndpoint, nothing, type Saved } from './state.js'
import type { Step } from './step.js'
import type { Tables } from './tables.js'
import { unseen } from './unseen.js'

export { systemKernel } from './kernel/command.js'
export type { Kernel } from './kernel/kernel.js'
export type { Step } from './step.js'

export class Network {
  /** Our endpoints, as far as we know. */
  private endpoints: NumberedEndpoint[] = []
  /** Ids of endpoints that were dropped since the last observation began. */
  private readonly dropped = new Set<number>()
  /** Our part of the tables of iptables after the last apply. */
  private tables: Tables | undefined
  /** The content of the state file after the last apply, in case the file gets lost. */
  private saved: Saved | undefined
  private readonly arrivals: Arrivals
  /** Features that this kernel's iptables was found to lack. */
  private readonly lacks = new Set<Extra>()

  constructor(private readonly kernel: Kernel) {
    this.arrivals = new Arrivals(kernel)
  }

  /** What `apply` would do; changes nothing. Rejects if `apply` would reject before its first step. */
  async plan(config: GatewayConfig, options: NetworkOptions = {}): Promise<NetworkPlan> {
    return (await this.prepare(config, options)).plan
  }

  /**
   * Carries the change out and returns what it did. Rejects with a BondsocksError (exit code 1): without a change if the machine is not fit
   * (`NOT_ROOT`, `NO_IPROUTE2`, `NO_IPTABLES`, `NO_NAT`, `NO_MPTCP`, `MPTCP_OFF`), rolled back if a step failed. Waits while another
   * process changes the set-up (`LOCKED` after 10 s).
   */
  apply(config: GatewayConfig, options: NetworkOptions = {}): Promise<NetworkPlan> {
    return this.alone(() => this.pass(config, options))
  }

  private async pass(config: GatewayConfig, options: NetworkOptions): Promise<NetworkPlan> {
    this.dropped.clear()
    const first = await this.round(config, options, options.quick ? this.tables : undefined)
    const isPathNew = first.steps.some(({ kind }) => kind === 'rule-added' || kind === 'route-added')
    // Only now can the kernel tell where packets of the new paths go. In a quick pass the watch does this: it asks for another pass after each
    // change, also ours.
    if (!isPathNew || options.quick) return first
    const { steps, ...found } = await this.round(config, options, this.tables)
    return { steps: [...first.steps, ...steps], ...found }
  }

  private async round(config: GatewayConfig, options: NetworkOptions, tables?: Tables): Promise<NetworkPlan> {
    // If anything fails, the next pass looks at everything.
    this.tables = undefined
    const { plan, change, observed } = await this.prepare(config, options, tables)
    const isAlive = ({ id }: { id: number }) => !this.dropped.has(id)
    const reused = new Set(change.endpoints.map(({ id }) => id))
    this.endpoints = [...change.endpoints, ...observed.endpoints.filter((one) => one.isOurs && !reused.has(one.id))].filter(
      isAlive,
    )
    if (observed.isStateStale) await save(this.kernel, observed.saved)
    try {
      await carryOut(this.kernel, change, observed.saved, async () =>
        tables === undefined ? unseen(this.kernel, observed.families, change) : undefined,
      )
    } catch (error) {
      const lacking = lackingExtra(error, this.lacks)
      if (lacking === undefined) throw error
      this.lacks.add(lacking)
      return this.round(config, options)
    }
    this.endpoints = change.endpoints.filter(isAlive)
    this.saved = change.savedAfter
    this.tables = { chains: change.chains, chainNotes: observed.chainNotes, strays: [] }
    // Only now it is known whether the state file could be written.
    const { notes } = plan
    return (await this.kernel.keepsState()) || notes.includes(notKept) ? plan : { ...plan, notes: [...notes, notKept] }
  }

  /**
   * Deletes our endpoints with these source addresses at once, as known from the last pass, also during a pass; connections leave those
   * WANs. If a family would have no endpoint left, its endpoints stay (`isLastEndpoint`). Rejects with `COMMAND_FAILED`.
   */
  async dropEndpoints(addresses: readonly string[]): Promise<void> {
    const staying = this.endpoints.filter(({ address }) => !addresses.includes(address))
    const going = this.endpoints.filter((one) => !staying.includes(one) && !isLastEndpoint(one, staying))
    this.endpoints = this.endpoints.filter((one) => !going.includes(one))
    for (const { id } of going) this.dropped.add(id)
    const [failure] = await performAll(this.kernel, going.map(deleteCommand))
    if (failure !== undefined) throw failure
  }

  /**
   * Makes the kernel forget that MPTCP's first packets vanished on some path; it would avoid MPTCP on every WAN. Writing any value to the
   * sysctl clears that. Rejects with a system error.
   */
  async forgetBlackHole(): Promise<void> {
    const path = 'net/mptcp/blackhole_timeout'
    const value = (await this.kernel.readSysctls([path])).get(path)
    if (value !== undefined) await this.kernel.writeSysctl(path, value)
  }

  /**
   * Removes all that is ours, found by our ranges and names, and puts former values back; also after a kill -9. `hags`: also what HAGs have
   * set up here.
   */
  remove({ hags = false } = {}): Promise<Step[]> {
    return this.alone(async () => {
      this.tables = undefined
      this.endpoints = []
      const observed = await observe(this.kernel, { lenient: true, copies: hags, known: this.saved })
      const change = diff(observed, nothing)
      await carryOutAsFarAsPossible(this.kernel, change, observed.saved, () => unseen(this.kernel, observed.families, change))
      this.saved = undefined
      if (observed.loss !== undefined) {
        await save(this.kernel, change.savedAfter)
        throw new BondsocksError('REMOVE_INCOMPLETE', `all of ours that is known is removed, but ${observed.loss}`)
      }
      return change.steps
    })
  }

  /** One process at a time: otherwise steps could be based on a state that another process is about to change. */
  private async alone<Value>(act: () => Promise<Value>): Promise<Value> {
    const release = await this.kernel.lock()
    try {
      return await act()
    } finally {
      release()
    }
  }

  private async prepare(config: GatewayConfig, options: NetworkOptions, tables?: Tables) {
    const seen = await observe(this.kernel, { tables, known: this.saved })
    const outside = await lookOutside(this.kernel, withRealNames(config, seen), seen, options.hags)
    const observed = { ...seen, outside }
    if (tables === undefined) await this.arrivals.look(observed.chains, config)
    const more = { ...options, blocked: this.arrivals.blocked, lacks: this.lacks }
    const decide = (fixedSysctls: ReadonlySet<string>) => {
      const target = desired(config, { ...observed, fixedSysctls }, more)
      return { target, change: diff(observed, target) }
    }
    const wanted = decide(new Set())
    const writes = wanted.change.steps.flatMap(({ action }) => ('sysctl' in action ? [action.sysctl] : []))
    const fixed = await this.kernel.fixedSysctls(writes)
    const { target, change } = fixed.size > 0 ? decide(fixed) : wanted
    const plan = planOf(target, change.steps)
    if (more.blocked.length > 0) plan.isBlocked = true
    return { observed, change, plan }
  }
}

function planOf({ wans, chains, notes }: Desired, steps: Step[]): NetworkPlan {
  return { steps, wans, redirects: chains.some(({ table }) => table === 'nat'), notes }
}

/** If the kernel lacks a match or target of iptables: the part of ours that we can leave out. */
function lackingExtra(error: unknown, known: ReadonlySet<Extra>): Extra | undefined {
  if (!(error instanceof ChangeFailed) || error.step === undefined) return undefined
  const isLack =
    /^"ip6?tables\S*-restore .*(missing kernel module|No such file or directory|not supported|load match|line \d+ failed)/i
  if (!isLack.test(error.message)) return undefined
  const { text } = error.step
  const extra = text.includes('*filter') ? 'filter' : text.includes(' -m bpf ') ? 'bpf' : undefined
  return extra !== undefined && !known.has(extra) ? extra : undefined
}
