/** The set-up of a HAG's machine: observed, planned, applied and removed like a gateway's, but each need separately. */
import { BondsocksError } from '../base/errors.js'
import type { HagConfig } from '../config/schema.js'
import { ChangeFailed, carryOut, carryOutAsFarAsPossible } from './apply.js'
import { desiredForHag, type HagNeed, type HagOptions, hagNeeds, hagNote } from './desired/hag.js'
import { mtuProbing } from './desired/sysctls.js'
import { diff } from './diff.js'
import { isSameCopy } from './kernel/copy.js'
import type { Kernel } from './kernel/kernel.js'
import { type Found, observeNeed } from './observe-hag.js'
import { parseSaved } from './saved.js'
import { type Change, type Desired, type NetworkPlan, needsRoot, nothing, type Observed, type Saved } from './state.js'

/** After a failure, the wait doubles from this to the longest. */
const firstRetryMs = 1000
const longestRetryMs = 600_000

interface Failure {
  why: string
  /** The rules and routes with which it failed. If they are still the same, we do not try again at once: our own try is a change, too. */
  state: string
  retryMs: number
  retryAt: number
}

export class HagNetwork {
  readonly #failures = new Map<HagNeed, Failure>()
  #turn: Promise<unknown> = Promise.resolve()

  /** Tests move the clock (ms). */
  constructor(
    private readonly kernel: Kernel,
    private readonly now = () => performance.now(),
  ) {}

  /** What `apply` would do; changes nothing. Rejects with `NOT_ROOT`. */
  plan(config: HagConfig, options: HagOptions): Promise<NetworkPlan> {
    return this.#each(hagNeeds, async (need) => {
      const { observed } = await observeNeed(this.kernel, need)
      const target = desiredForHag(config, observed, options)
      return { steps: diff(observed, target).steps, notes: target.notes }
    })
  }

  /**
   * Meets the needs as far as it can, and returns what it did; a note says what it could not. A need that failed is not tried again for
   * `retryInMs`, unless rules or routes have changed. Rejects with `NOT_ROOT`, and with `LOCKED` after 10 s.
   */
  apply(config: HagConfig, { needs = hagNeeds, ...options }: HagOptions & { needs?: readonly HagNeed[] }): Promise<NetworkPlan> {
    return this.#alone(() => this.#each(needs, (need) => this.#meet(config, need, options)))
  }

  /** Time until a need that has failed can be tried again (ms). */
  retryInMs(need: HagNeed): number | undefined {
    const failure = this.#failures.get(need)
    return failure && Math.max(0, failure.retryAt - this.now())
  }

  /** Removes all of it, whatever the ports are; other things of ours stay. Rejects with `REMOVE_INCOMPLETE` if it cannot. */
  remove(): Promise<void> {
    return this.#alone(async () => {
      const failures: Error[] = []
      const { saved } = parseSaved(await this.kernel.readState())
      // Without `ip mptcp` the limit cannot be read.
      const needs = hagNeeds.filter((need) => need !== 'subflows' || saved.subflows !== undefined)
      for (const need of needs) {
        await this.#remove(need).catch((error: Error) => failures.push(error))
      }
      const [first] = failures
      if (first !== undefined) throw first
    })
  }

  async #remove(need: HagNeed): Promise<void> {
    const { observed, saved } = await observeNeed(this.kernel, need)
    const change = withOthers(need, saved, diff(observed, nothing))
    await carryOutAsFarAsPossible(this.kernel, change, saved, async () => undefined)
  }

  async #each(
    needs: readonly HagNeed[],
    act: (need: HagNeed) => Promise<Pick<NetworkPlan, 'steps' | 'notes'>>,
  ): Promise<NetworkPlan> {
    if (!(await this.kernel.mayAdminister())) throw new BondsocksError('NOT_ROOT', needsRoot)
    const plans = []
    for (const need of needs) {
      plans.push(await act(need).catch((error: Error) => ({ steps: [], notes: [hagNote(need, reasonOf(error))] })))
    }
    return { steps: plans.flatMap(({ steps }) => steps), wans: [], redirects: false, notes: plans.flatMap(({ notes }) => notes) }
  }

  async #meet(config: HagConfig, need: HagNeed, options: HagOptions) {
    let state = ''
    try {
      const found = await observeNeed(this.kernel, need)
      state = JSON.stringify(found.observed.copies.map(({ otherRules, main }) => [otherRules, main]))
      const failure = this.#failures.get(need)
      if (failure?.state === state && this.now() < failure.retryAt) {
        return { steps: [], notes: [hagNote(need, failure.why)] }
      }
      const plan = await this.#carryOut(config, need, options, found)
      this.#failures.delete(need)
      return plan
    } catch (error) {
      const last = this.#failures.get(need)
      const retryMs = last?.state === state ? Math.min(2 * last.retryMs, longestRetryMs) : firstRetryMs
      this.#failures.set(need, { why: reasonOf(error), state, retryMs, retryAt: this.now() + retryMs })
      throw error
    }
  }

  async #carryOut(config: HagConfig, need: HagNeed, options: HagOptions, { observed, saved }: Found) {
    const perform = async (change: Change, check: () => Promise<BondsocksError | undefined> = async () => undefined) => {
      await carryOut(this.kernel, withOthers(need, saved, change), saved, check)
      return change.steps
    }
    const target = desiredForHag(config, observed, options)
    const { notes } = target
    const [have] = observed.copies
    const [want] = target.copies
    if (have === undefined || want === undefined || isSameCopy(have.routes, want.routes)) {
      return { steps: await perform(diff(observed, target)), notes }
    }
    // No rule may lead to an incomplete table: a flapping link removes routes while they are copied.
    let made = observed
    const copied = await perform(diff(observed, { ...target, copies: [{ ...want, rules: [] }] }), async () => {
      made = (await observeNeed(this.kernel, need)).observed
      return untrue(made, desiredForHag(config, made, options))
    })
    return { steps: [...copied, ...(await perform(diff(made, target)))], notes }
  }

  /** One after the other, in the order of the calls: whoever waits for the lock itself asks for it only every 20 ms. */
  #alone<Value>(act: () => Promise<Value>): Promise<Value> {
    const turn = this.#turn.then(async () => {
      const release = await this.kernel.lock()
      try {
        return await act()
      } finally {
        release()
      }
    })
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}

/** The copy was read back and differs from the main table. */
function untrue({ copies: [have] }: Observed, { copies: [want] }: Desired): BondsocksError | undefined {
  if (have === undefined || want === undefined || isSameCopy(have.routes, want.routes)) return undefined
  const other =
    want.routes.find((route, at) => !isSameCopy([route], have.routes.slice(at, at + 1))) ?? have.routes[want.routes.length]
  return new BondsocksError('COPY_UNTRUE', `the main table has no true copy: ${other?.words}`)
}

/** The failed step's error, without what became of the steps before it. */
const reasonOf = (error: unknown) => ((error instanceof ChangeFailed ? error.cause : error) as Error).message

/** Keeps what is saved for a gateway or for another need. */
function withOthers(need: HagNeed, saved: Saved, change: Change): Change {
  const { [mtuProbing]: _, ...otherSysctls } = saved.sysctls
  const merge = (part: Saved): Saved => {
    if (need === 'probing') return { ...saved, sysctls: { ...otherSysctls, ...part.sysctls } }
    return need === 'subflows' ? { ...saved, subflows: part.subflows } : saved
  }
  return { ...change, savedMeanwhile: merge(change.savedMeanwhile), savedAfter: merge(change.savedAfter) }
}
