/** Carries out a change: all of it, or nothing. */
import { isDeepStrictEqual } from 'node:util'
import { BondsocksError } from '../shared/errors.js'
import type { Kernel } from './kernel.js'
import { capture } from './observe.js'
import { type Action, type Change, type Saved, type Step, textOf } from './state.js'

/** What `ip` says of an object that is not there. */
const goneText = /address not found|No such (process|file or directory)|FIB table does not exist|Cannot find device/

/** False: what was to be deleted has gone already, and there is nothing to undo. */
export async function perform(kernel: Kernel, action: Action): Promise<boolean> {
  if ('argv' in action) {
    try {
      await capture(kernel, action.argv, action.input)
      return true
    } catch (error) {
      const isDeletion = action.argv[0] === 'ip' && action.argv.some((word) => word === 'del' || word === 'delete')
      if (isDeletion && goneText.test((error as Error).message)) return false
      throw error
    }
  }
  try {
    await kernel.writeSysctl(action.sysctl, action.value)
    return true
  } catch (cause) {
    throw new BondsocksError('SYSCTL_FAILED', `"${textOf(action)}" failed: ${(cause as Error).message}`, { cause })
  }
}

function save(kernel: Kernel, saved: Saved): Promise<void> {
  const isEmpty = Object.keys(saved.sysctls).length === 0 && saved.subflows === undefined
  return kernel.writeState(isEmpty ? undefined : `${JSON.stringify(saved, null, 2)}\n`)
}

/** Rejects with the failed step's command and output, after undoing the steps before it. */
export async function carryOut(kernel: Kernel, change: Change, before: Saved): Promise<void> {
  // Written first: whenever we are killed, `remove` knows every former value.
  if (!isDeepStrictEqual(before, change.savedMeanwhile)) await save(kernel, change.savedMeanwhile)
  const done: Step[] = []
  try {
    for (const one of change.steps) {
      if (await perform(kernel, one.action)) done.push(one)
    }
  } catch (cause) {
    const failures = await undo(kernel, done)
    if (failures.length === 0) await save(kernel, before)
    throw failed(cause as Error, failures)
  }
  if (!isDeepStrictEqual(change.savedMeanwhile, change.savedAfter)) await save(kernel, change.savedAfter)
}

async function undo(kernel: Kernel, done: readonly Step[]): Promise<Error[]> {
  const failures: Error[] = []
  for (const action of [...done].reverse().flatMap((one) => one.undo)) {
    await perform(kernel, action).catch((error: Error) => failures.push(error))
  }
  return failures
}

function failed(cause: Error, failures: readonly Error[]): BondsocksError {
  const end =
    failures.length === 0
      ? 'the network is as it was before'
      : `undoing the steps before it failed too (${failures.map(({ message }) => message).join('; ')}): run bondsocks remove`
  const code = cause instanceof BondsocksError ? cause.code : 'STEP_FAILED'
  return new BondsocksError(code, `${cause.message}; ${end}`, { cause })
}

/** Goes on after a failed step, so that as much as possible is gone; rejects at the end. Former values stay saved until all is done. */
export async function carryOutAsFarAsPossible(kernel: Kernel, change: Change): Promise<void> {
  const failures: string[] = []
  for (const one of change.steps) await perform(kernel, one.action).catch((error: Error) => failures.push(error.message))
  if (failures.length > 0)
    throw new BondsocksError('REMOVE_INCOMPLETE', `not everything could be removed: ${failures.join('; ')}`)
  await save(kernel, change.savedAfter)
}
