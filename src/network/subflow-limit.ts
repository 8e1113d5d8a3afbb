/**
 * How many subflows may join a connection to a HAG. The kernel's two are not enough for four WANs, and with two WANs they are used up by
 * subflows of which a gateway has taken leave in vain: the kernel says so once (RM_ADDR), and where that is lost they live on. So all that the
 * kernel can do are allowed.
 */
import { aborted } from '../shared/service.js'
import type { Log } from '../telemetry/log.js'
import { save } from './apply.js'
import { limitCommand, parseSubflowLimit } from './kernel/mptcp.js'
import type { Kernel } from './kernel.js'
import { capture } from './observe.js'
import { parseSaved } from './saved.js'
import { isHeld } from './state.js'

const most = 8

/** Until the signal; then the last HAG puts the former limit back. Never rejects: where it cannot be done the kernel's stays, and that is said. */
export async function keepSubflowLimit(
  { kernel, log, isLast = () => true }: { kernel: Kernel; log: Log; isLast?: () => boolean },
  signal: AbortSignal,
): Promise<void> {
  const attempt = async (act: () => Promise<void>) => {
    try {
      await act()
    } catch (error) {
      log.info(`how many WANs can join a connection stays as it is: ${(error as Error).message}`)
    }
  }
  await attempt(() => change(kernel, true))
  await aborted(signal)
  if (isLast()) await attempt(() => change(kernel, false))
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
