/** The control path's door: say what should be, then make it so. */

import { familyOf } from '../base/address.js'
import { BondsocksError } from '../base/errors.js'
import type { GatewayConfig } from '../config/schema.js'
import { ChangeFailed, carryOut, carryOutAsFarAsPossible, performAll, save } from './apply.js'
import { Arrivals } from './arrivals.js'
import { desired, withRealNames } from './desired/desired.js'
import type { Extra } from './desired/redirection.js'
import { diff } from './diff.js'
import type { Kernel } from './kernel/kernel.js'
import { deleteCommand } from './kernel/mptcp.js'
import { notKept, observe } from './observe.js'
import { lookOutside } from './outgoing.js'
import type { NetworkOptions } from './state.js'
import { type NetworkPlan, type NumberedEndpoint, nothing, type Saved } from './state.js'
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
  /** Our part of the tables of iptables, as the last apply left it. */
  private tables: Tables | undefined
  /** What the state file should hold, as the last apply left it: the file may be lost meanwhile. */
  private saved: Saved | undefined
  private readonly arrivals: Arrivals
  /** What this kernel's iptables has been found to lack. */
  private readonly lacks = new Set<Extra>()

  constructor(private readonly kernel: Kernel) {
    this.arrivals = new Arrivals(kernel)
  }

  /** What `apply` would do; changes nothing. Rejects where `apply` would before its first step. */
  async plan(config: GatewayConfig, options: NetworkOptions = {}): Promise<NetworkPlan> {
    return (await this.prepare(config, options)).plan
  }

  /**
   * Makes it so and returns what it did. Rejects with a BondsocksError (exit code 1): nothing changed where the machine is not fit
   * (`NOT_ROOT`, `NO_IPROUTE2`, `NO_IPTABLES`, `NO_NAT`, `NO_MPTCP`, `MPTCP_OFF`); rolled back where a step failed. Waits
   * for another process that is about it (`LOCKED` after 10 s).
   */
  apply(config: GatewayConfig, options: NetworkOptions = {}): Promise<NetworkPlan> {
    return this.alone(() => this.pass(config, options))
  }

  private async pass(config: GatewayConfig, options: NetworkOptions): Promise<NetworkPlan> {
    this.dropped.clear()
    const first = await this.round(config, options, options.quick ? this.tables : undefined)
    const isPathNew = first.steps.some(({ text }) => /^ip (-6 )?(rule|route) (add|replace) /.test(text))
    // Only now can the kernel say where what takes the new paths goes. What watches it asks for a pass after each change, ours too.
    if (!isPathNew || options.quick) return first
    const { steps, ...found } = await this.round(config, options, this.tables)
    return { steps: [...first.steps, ...steps], ...found }
  }

  private async round(config: GatewayConfig, options: NetworkOptions, tables?: Tables): Promise<NetworkPlan> {
    // Whatever fails: the next pass looks at everything.
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
    // What could not be written is known only now.
    const { notes } = plan
    return (await this.kernel.keepsState()) || notes.includes(notKept) ? plan : { ...plan, notes: [...notes, notKept] }
  }

  /**
   * Deletes our endpoints with these source addresses at once, from what is remembered of the last pass, also while one is under way; the
   * connections leave those WANs. What would leave a family without endpoints stays: its connections may outlive a short outage. Rejects
   * with `COMMAND_FAILED`.
   */
  async dropEndpoints(addresses: readonly string[]): Promise<void> {
    const stays = (one: { address: string }) => !addresses.includes(one.address)
    const going = this.endpoints.filter(
      (one) => !stays(one) && this.endpoints.some((other) => stays(other) && familyOf(other.address) === familyOf(one.address)),
    )
    this.endpoints = this.endpoints.filter((one) => !going.includes(one))
    for (const { id } of going) this.dropped.add(id)
    const [failure] = await performAll(this.kernel, going.map(deleteCommand))
    if (failure !== undefined) throw failure
  }

  /**
   * Makes the kernel forget that MPTCP's first packets vanished somewhere, which it holds against every WAN: writing the sysctl clears it,
   * whatever the value. Rejects with a system error.
   */
  async forgetBlackHole(): Promise<void> {
    const path = 'net/mptcp/blackhole_timeout'
    const value = (await this.kernel.readSysctls([path])).get(path)
    if (value !== undefined) await this.kernel.writeSysctl(path, value)
  }

  /**
   * Takes away all that is ours, found by our ranges and names, and puts former values back; also after a kill -9. `hags`: what HAGs have set
   * up here too.
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

  /** Steps that were decided on what another process is about to change would fail, or spoil its work. */
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
    return { observed, change, plan: { steps: change.steps, wans: target.wans, notes: target.notes } satisfies NetworkPlan }
  }
}

/** The error of a kernel that lacks a match or a target of iptables, and the part of ours that can do without. */
function lackingExtra(error: unknown, known: ReadonlySet<Extra>): Extra | undefined {
  if (!(error instanceof ChangeFailed) || error.step === undefined) return undefined
  const isLack =
    /^"ip6?tables\S*-restore .*(missing kernel module|No such file or directory|not supported|load match|line \d+ failed)/i
  if (!isLack.test(error.message)) return undefined
  const { text } = error.step
  const extra = text.includes('*filter') ? 'filter' : text.includes(' -m bpf ') ? 'bpf' : undefined
  return extra !== undefined && !known.has(extra) ? extra : undefined
}
