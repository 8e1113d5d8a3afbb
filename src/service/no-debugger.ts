/**
 * SIGUSR1 opens Node's debugger on a loopback port, through which anybody on the machine could control a process of root. To be imported
 * before anything else.
 */
import { close } from 'node:inspector'

process.on('SIGUSR1', () => undefined)

/** To be called when the event loop runs: SIGUSR1 may have come before this module was loaded. */
export function closeDebugger(): void {
  if (![...process.execArgv, process.env.NODE_OPTIONS].some((option) => option?.includes('--inspect'))) close()
}
