/** Events of limits, and of clients that are not served. */
import { info, type Lines, warn } from './line.js'

type LimitCause = 'connections' | 'descriptors' | 'memory' | 'pipes'
type RefusalCause = 'not-a-client' | 'method' | 'credentials' | 'share' | 'waited' | 'not-redirected' | 'loop'

/** How often; left out: when it began, otherwise since somebody was told last. */
interface Times {
  readonly count: number
  readonly during?: 'last-minute' | 'end' | undefined
}

export interface LimitEvents {
  /** `isReached`: accepting pauses or, with `pipes`, some connections take more processor time. `limit`: in words, if it has a number. */
  limit: { readonly cause: LimitCause; readonly isReached: boolean; readonly limit: string }
  /** `limit`: what one client may have, in words. `destination`: where the first of its connections wanted to go. */
  'client-refused': Times & {
    readonly client: string
    readonly cause: RefusalCause
    readonly limit: string
    readonly destination: string
  }
  'others-refused': Times
  /** It waits for so many names of its own. */
  'client-waits-for-names': { readonly client: string; readonly names: number }
}

const raiseLimit = 'raise the limit: `ulimit -n`, LimitNOFILE='

const pauses: Record<LimitCause, (limit: string) => string> = {
  connections: (limit) => `accepting pauses: there are ${limit}`,
  descriptors: (limit) => `accepting pauses: none of ${limit} is left (${raiseLimit})`,
  memory: () => 'accepting pauses: the kernel has no memory left for sockets (see net.ipv4.tcp_mem)',
  pipes: (limit) => `some connections take more processor time: ${limit} are too few for their pipes (${raiseLimit})`,
}

const periods = { 'last-minute': ' in the last minute', end: ' since then' }
const periodOf = ({ during }: Times) => (during === undefined ? '' : periods[during])

export const limitLines: Lines<LimitEvents> = {
  limit: ({ cause, isReached, limit }) =>
    isReached ? warn(pauses[cause](limit), { cause }) : info('accepting goes on', { cause }),
  'client-refused': (refusal) => {
    const { client, cause, count } = refusal
    const often = count === 1 ? 'once' : `${count} times`
    const times = count === 1 && refusal.during === undefined ? '' : ` (${often}${periodOf(refusal)})`
    return warn(`${refusalOf(refusal)}${times}`, { client, cause, count })
  },
  'others-refused': (refusals) => warn(`refused others ${refusals.count} times${periodOf(refusals)}`, { count: refusals.count }),
  'client-waits-for-names': ({ client, names }) =>
    warn('a client asks for more names than are answered, and waits for its own: is the name server silent?', { client, names }),
}

function refusalOf({ cause, client, limit, destination }: LimitEvents['client-refused']): string {
  switch (cause) {
    case 'not-a-client':
      return `refused ${client}: not in \`clients\``
    case 'method':
      return `refused ${client}: it offers no way to log in that is taken here: a user name and password if there is a users_file, else none`
    case 'credentials':
      return `refused ${client}: wrong user name or password`
    case 'share':
      return `refused ${client}: it has ${limit}, or as many as are free`
    case 'waited':
      return `refused ${client}: it had asked for nothing yet, and others needed its place`
    case 'not-redirected':
      return (
        `refused a connection from ${client} to our own listener ${destination}: nothing redirected it, or a REDIRECT rule that takes ` +
        'local destinations too: let that rule in `iptables -t nat -S` skip them with `-m addrtype ! --dst-type LOCAL`'
      )
    case 'loop':
      return (
        `refused a redirect loop: the gateway's own connection from ${client} to ${destination} was redirected to us: take away the ` +
        'REDIRECT rule in the OUTPUT chain (`iptables -t nat -S OUTPUT`), or limit it to LAN interfaces with `-i`'
      )
  }
}
