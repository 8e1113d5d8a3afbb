/** Events of connections as a whole; one connection alone is for the debug level. */
import { type Lines, warn } from './line.js'

export interface ConnectionEvents {
  /** `hag`: all over this HAG; left out: those that had no subflow left. */
  'connections-reset': { readonly count: number; readonly hag?: string }
}

export const connectionLines: Lines<ConnectionEvents> = {
  'connections-reset': ({ count, hag }) => {
    const which = hag === undefined ? 'had no way left and' : `over HAG ${hag}`
    return warn(`${count} connections ${which} were reset, so that their clients begin anew`)
  },
}
