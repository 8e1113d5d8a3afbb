/** Events of the machine's network set-up. */
import { info, type Lines } from './line.js'

export interface NetworkEvents {
  /** From now on new connections of the LAN come to the gateway. */
  'lan-redirected': object
}

export const networkLines: Lines<NetworkEvents> = {
  'lan-redirected': () => info('the LAN is redirected'),
}
