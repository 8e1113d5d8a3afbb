/** What the engine tells its owner. */
import type { SocketAddress } from '../base/address.js'

/** Identifies a connection for the life of the engine; a safe integer, never used twice. */
export type ConnectionId = number

export type Protocol = 'mptcp' | 'tcp'

export interface Failure {
  /**
   * An errno's name such as `ECONNREFUSED`, or what we add: `ETIMEDOUT` also for our own time limits; `EPROTO`: the answer is not SOCKS5;
   * `EACCES`: the HAG refused our credentials or, in `greeting`, wants some and we have none; `NOT_A_CLIENT`: a `bondsocks hag` does not
   * list our address; `SOCKS_REPLY`: see `reply`.
   */
  code: string
  errno: number
  syscall: string
}

export type EngineEvent =
  /** A client came to a `redirect` listener. None of its bytes are read until `dial` or `reset`. */
  | {
      type: 'accepted'
      connection: ConnectionId
      client: SocketAddress
      /** Where the client wanted to go. The same as `local` if it was not redirected. */
      destination: SocketAddress
      /** Our address and port that accepted it. */
      local: SocketAddress
      /**
       * The fast path was tried, as attempt 0. `timedOut`: the attempt still waits for an answer, and the patience is over. Otherwise the
       * attempt's `failed` or `opened` is the next event.
       */
      viaFastPath?: { id: number; timedOut: boolean }
    }
  /** So many clients came by a fast path that uses prepared connections. */
  | { type: 'demand'; clients: number }
  /** A client came, or payload moves, after nothing of that for 9 s. */
  | { type: 'active' }
  /** `socks` listeners with authentication: answer with `authenticate`. Before `request`. */
  | { type: 'credentials'; connection: ConnectionId; client: SocketAddress; username: string; password: string }
  /** A SOCKS client sent CONNECT: answer with `dial` (if it succeeds, the client gets its reply) or `refuse`. */
  | {
      type: 'request'
      connection: ConnectionId
      client: SocketAddress
      /** Our address and port that accepted it. */
      local: SocketAddress
      /** IP literal or domain name. */
      host: string
      port: number
    }
  /** An attempt succeeded, and the relay has begun. */
  | {
      type: 'opened'
      connection: ConnectionId
      /** The number that `dial` gave it. */
      attempt: number
      /** Our end of the new connection. */
      local: SocketAddress
      /** Also 'tcp' if MPTCP fell back. undefined: the kernel cannot tell (before 5.16). */
      protocol: Protocol | undefined
      /** Set if a prepared connection was used. */
      prepared?: true
    }
  /** An attempt failed. Unless `early` is set, the client still waits, and all that it sent is unread: `dial` another path, `refuse` or `reset`. */
  | {
      type: 'failed'
      connection: ConnectionId
      attempt: number
      /** Attempts of this connection that are still under way. */
      left: number
      /**
       * Bytes of the client that left with a pipelined request and may have reached the server. They are never sent again: the client gets
       * a RST, and `closed` follows. Not set if the HAG refused the request or us.
       */
      early?: number
      /** Where it failed. `request`: the HAG answered CONNECT with `reply` (RFC 1928 section 6), or did not answer it. */
      stage: 'connect' | 'greeting' | 'authentication' | 'request'
      failure: Failure
      reply?: number
    }
  /**
   * The connection is gone, and its descriptors are closed. Exactly one for every connection, its last event. For connections that the fast
   * path served to their end it is the only event, and comes within a second together with others.
   */
  | {
      type: 'closed'
      connection: ConnectionId
      /**
       * `end`: both directions ended, and the other end acknowledged what was sent over MPTCP.
       * `client-reset`, `upstream-reset`: that side sent a RST, or did not acknowledge its last bytes in time (ETIMEDOUT); or the upstream
       * was reset by `resetConnectionsTo` (ECONNRESET) or `resetStranded` (ENETDOWN). The other side got a RST.
       * `idle`: no byte for `idleTimeoutMs`.
       * `handshake`: a SOCKS client was too slow, or did not speak SOCKS5.
       * `refused`: by `refuse`, or a SOCKS client asked for BIND, UDP or a method of authentication that we do not have.
       * `reset`: by `reset`, or the owner did not answer in time (ETIMEDOUT).
       */
      reason: 'end' | 'client-reset' | 'upstream-reset' | 'idle' | 'handshake' | 'refused' | 'reset'
      /** Set if an error ended it. */
      failure?: Failure
      client: SocketAddress
      /** Where a redirected client wanted to go; for a `socks` client, where its connection was opened to. */
      destination?: SocketAddress
      /** Id of the fast path that opened it, if the owner was not asked. */
      fastPath?: number
      /** Bytes of payload from the client to the upstream, and back. */
      sent: number
      received: number
      /** Milliseconds since accept. */
      durationMs: number
    }
  /**
   * Accepting paused at a limit, or goes on: one event for each change. `pipes` does not pause it: bytes are copied instead of spliced, which
   * takes more processor time; told at most once an hour.
   */
  | { type: 'limit'; limited: boolean; cause: 'connections' | 'descriptors' | 'memory' | 'pipes' }
  /** The first client was refused since the last `takeRefusals`. */
  | { type: 'refused' }

/** Clients of one address (IPv6: of one /64) that were refused. They have no event of their own. */
export interface Refusal {
  /**
   * `not-a-client`: not in `clients`; `method`: offered no way to log in that we take; `credentials`: not accepted; `share`: above
   * `maxConnectionsPerClient`; `waited`: it had asked for nothing yet when others needed its place; with `refuseLoops`, `not-redirected`: to
   * our own listener, and `loop`: our own connection.
   */
  cause: 'not-a-client' | 'method' | 'credentials' | 'share' | 'waited' | 'not-redirected' | 'loop'
  count: number
  /** Left out: all addresses beyond the first 256. */
  client?: string
  /** Where the first of them wanted to go; for `not-redirected` and `loop`. */
  destination?: SocketAddress
}
