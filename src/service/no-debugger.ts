/**
 * SIGUSR1 opens Node's debugger on a port of loopback: anybody on the machine could command a process of root's. To be imported before
 * anything else.
 */
import { close } from 'node:inspector'

process.on('SIGUSR1', () => undefined)

/** To be called as soon as the event loop has turned: a SIGUSR1 may have come before this was loaded. */
export function closeDebugger(): void {
  if (![...process.execArgv, process.env.NODE_OPTIONS].some((option) => option?.includes('--inspect'))) close()
}
