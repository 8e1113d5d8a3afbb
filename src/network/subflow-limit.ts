import { aborted } from '../base/pause.js'
import type { Log } from '../telemetry/log.js'
import { save } from './apply.js'
import { mtuProbing } from './desired/sysctls.js'
import type { Kernel } from './kernel/kernel.js'
import { limitCommand, parseSubflowLimit } from './kernel/mptcp.js'
import { capture } from './observe.js'
import { parseSaved } from './saved.js'
import { isHeld } from './state.js'

const most = 8

/** Until the signal; then the last HAG puts the former values back. Never rejects: where it cannot be done the kernel's stays, and that is said. */
export async function keepSubflowLimit(
  { kernel, log, isLast = () => true }: { kernel: Kernel; log: Log; isLast?: () => boolean },
  signal: AbortSignal,
): Promise<void> {
  const needs = [
    { what: 'how many WANs can join a connection', set: (raises: boolean) => change(kernel, raises) },
    { what: 'what becomes of lines that drop full-size packets', set: (raises: boolean) => probeMtu(kernel, raises) },
  ]
  const attempt = async ({ what, set }: (typeof needs)[number], raises: boolean) => {
    try {
      await set(raises)
      return true
    } catch (error) {
      log.info(`${what} stays as it is: ${(error as Error).message}`)
      return false
    }
  }
  const done: typeof needs = []
  for (const need of needs) if (await attempt(need, true)) done.push(need)
  await aborted(signal)
  if (isLast()) for (const need of done) await attempt(need, false)
}

async function probeMtu(kernel: Kernel, begins: boolean): Promise<void> {
  const release = await kernel.lock()
  try {
    const now = (await kernel.readSysctls([mtuProbing])).get(mtuProbing)
    const { sysctls, ...others } = parseSaved(await kernel.readState()).saved
    const { [mtuProbing]: held, ...rest } = sysctls
    if (begins && now === '0') {
      await save(kernel, { ...others, sysctls: { ...sysctls, [mtuProbing]: { former: now, ours: ['1'] } } })
      await kernel.writeSysctl(mtuProbing, '1')
    } else if (!begins && isHeld(held, now)) {
      await kernel.writeSysctl(mtuProbing, held.former)
      await save(kernel, { ...others, sysctls: rest })
    }
  } finally {
    release()
  }
}

async function change(kernel: Kernel, raises: boolean): Promise<void> {
  const release = await kernel.lock()
  try {
    const now = parseSubflowLimit(await capture(kernel, ['ip', 'mptcp', 'limits', 'show']))
    const { subflows: held, ...others } = parseSaved(await kernel.readState()).saved
    const isOurs = isHeld(held, now)
    if (raises && now < most) {
      // Written first: whenever we are killed, `remove` knows it.
      await save(kernel, { ...others, subflows: { former: isOurs ? held.former : now, ours: [most] } })
      await capture(kernel, limitCommand(most).argv)
    } else if (!raises && isOurs) {
      await capture(kernel, limitCommand(held.former).argv)
      await save(kernel, others)
    }
  } finally {
    release()
  }
}
