/** Carries out a change completely or not at all. */
import { isDeepStrictEqual } from 'node:util'
import { BondsocksError } from '../base/errors.js'
import type { Kernel } from './kernel/kernel.js'
import { commandFailed } from './observe.js'
import { textOfSaved } from './saved.js'
import type { Change, Saved } from './state.js'
import { type Action, type KernelCommand, type Step, textOf } from './step.js'

/** `gone`: the object to delete did not exist, so there is nothing to undo. */
type Outcome = 'done' | 'gone' | BondsocksError

/** What `ip` says if an object does not exist. */
const goneText = /address not found|No such (process|file or directory)|FIB table does not exist|Cannot find device/

function outcomeOf({ argv }: KernelCommand, code: number, output: string): Outcome {
  const isDeletion = argv[0] === 'ip' && argv.some((word) => ['del', 'delete', 'flush'].includes(word))
  return isDeletion && goneText.test(output) ? 'gone' : commandFailed(argv, code, output)
}

async function performOne(kernel: Kernel, action: Action): Promise<Outcome> {
  if ('argv' in action) {
    const { code, stdout, stderr } = await kernel.run(action.argv, action.input)
    return code === 0 ? 'done' : outcomeOf(action, code, stderr || stdout)
  }
  try {
    await kernel.writeSysctl(action.sysctl, action.value)
    return 'done'
  } catch (cause) {
    return new BondsocksError('SYSCTL_FAILED', `"${textOf(action)}" failed: ${(cause as Error).message}`, { cause })
  }
}

/** `ip -batch` splits lines at blanks, and interprets quotes, backslashes and comments. */
const isPlain = (word: string) => /^[\w.:/@%+-]+$/.test(word)

/** The first commands of a list that fit into one `ip -batch`: all of the same family, or without a family, as those of MPTCP. */
function batchOf(actions: readonly Action[]): { options: string[]; commands: (KernelCommand & { line: string })[] } {
  const commands = []
  let options: string[] | undefined
  for (const action of actions) {
    if (!('argv' in action) || action.argv[0] !== 'ip' || !action.argv.every(isPlain)) break
    const own = action.argv.slice(1, 2).filter((word) => word === '-4' || word === '-6')
    const words = action.argv.slice(1 + own.length)
    if (words[0] !== 'mptcp') {
      if (options !== undefined && options.join() !== own.join()) break
      options = own
    }
    commands.push({ ...action, line: words.join(' ') })
  }
  return { options: options ?? [], commands }
}

/** Performs the first actions of a list with one process. Returns the outcome of each; a failure is the last. */
async function performSome(kernel: Kernel, actions: readonly Action[]): Promise<Outcome[]> {
  const { options, commands } = batchOf(actions)
  const [first] = actions
  if (commands.length === 0) return first === undefined ? [] : [await performOne(kernel, first)]
  const input = commands.map(({ line }) => `${line}\n`).join('')
  const { code, stdout, stderr } = await kernel.run(['ip', ...options, '-batch', '-'], input)
  if (code === 0) return commands.map(() => 'done')
  // If it does not say how far it came, it was killed; the next pass finds what it did.
  const [mark, number = '1'] = stderr.match(/^Command failed .*:(\d+)$/m) ?? ['']
  const failed = commands[Number(number) - 1] ?? commands[0]
  const output = stderr.replace(mark, '') || stdout
  return [...commands.slice(0, Number(number) - 1).map(() => 'done' as const), outcomeOf(failed as KernelCommand, code, output)]
}

/** Returns the outcome of each. Without `goOn` it stops at the first failure. */
async function perform(kernel: Kernel, actions: readonly Action[], goOn: boolean): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  while (outcomes.length < actions.length) {
    outcomes.push(...(await performSome(kernel, actions.slice(outcomes.length))))
    if (!goOn && isFailure(outcomes.at(-1))) break
  }
  return outcomes
}

const isFailure = (outcome: Outcome | undefined) => outcome instanceof BondsocksError

/** Performs all actions, even if some fail, and returns the failures. */
export async function performAll(kernel: Kernel, actions: readonly Action[]): Promise<BondsocksError[]> {
  return (await perform(kernel, actions, true)).filter((one) => one instanceof BondsocksError)
}

export function save(kernel: Kernel, saved: Saved): Promise<void> {
  const isEmpty =
    Object.keys(saved.sysctls).length === 0 &&
    saved.subflows === undefined &&
    saved.endpoints.length === 0 &&
    saved.ownIds === undefined
  return kernel.writeState(isEmpty ? undefined : textOfSaved(saved))
}

/** Rejects with the failed step's command and output, after undoing the steps before it. */
export async function carryOut(
  kernel: Kernel,
  change: Change,
  before: Saved,
  /** Checks whether the steps did what they should. What it finds is treated like a failed step. */
  check: () => Promise<BondsocksError | undefined>,
): Promise<void> {
  // Written before the steps, so that `remove` knows every former value whenever we are killed.
  if (!isDeepStrictEqual(before, change.savedMeanwhile)) await save(kernel, change.savedMeanwhile)
  const outcomes = await perform(
    kernel,
    change.steps.map(({ action }) => action),
    false,
  )
  const failedAt = outcomes.findIndex(isFailure)
  const cause = failedAt < 0 ? await check() : (outcomes[failedAt] as BondsocksError)
  if (cause !== undefined) {
    const done = change.steps.filter((_, at) => outcomes[at] === 'done').reverse()
    const failures = await performAll(
      kernel,
      done.flatMap(({ undo }) => undo),
    )
    if (failures.length === 0) await save(kernel, before)
    throw failed(cause, failures, change.steps[failedAt])
  }
  if (!isDeepStrictEqual(change.savedMeanwhile, change.savedAfter)) await save(kernel, change.savedAfter)
}

/** `step`: the failed step; undefined if all succeeded but did not do what they should. */
export class ChangeFailed extends BondsocksError {
  constructor(
    message: string,
    cause: BondsocksError,
    readonly step: Step | undefined,
  ) {
    super(cause.code, message, { cause })
  }
}

function failed(cause: BondsocksError, failures: readonly Error[], step: Step | undefined): ChangeFailed {
  const end =
    failures.length === 0
      ? 'the network is as it was before'
      : `undoing the steps before it failed too (${messages(failures)}): run bondsocks remove`
  return new ChangeFailed(`${cause.message}; ${end}`, cause, step)
}

const messages = (errors: readonly Error[]) => errors.map(({ message }) => message).join('; ')

/**
 * For a removal. Goes on after a failed step, so that as much as possible is removed, and rejects at the end. Former values stay saved
 * until all is done. If a full disk prevents saving before, it goes on all the same: that record is needed only if we are killed in between
 * (putting forwarding back for all interfaces makes the kernel set it for each).
 */
export async function carryOutAsFarAsPossible(
  kernel: Kernel,
  change: Change,
  before: Saved,
  check: () => Promise<BondsocksError | undefined>,
): Promise<void> {
  if (!isDeepStrictEqual(before, change.savedMeanwhile)) await save(kernel, change.savedMeanwhile).catch(() => undefined)
  const failures = await performAll(
    kernel,
    change.steps.map(({ action }) => action),
  )
  const unseen = failures.length > 0 ? undefined : await check()
  if (unseen !== undefined) failures.push(unseen)
  if (failures.length > 0) throw new BondsocksError('REMOVE_INCOMPLETE', `not everything could be removed: ${messages(failures)}`)
  await save(kernel, change.savedAfter)
}
