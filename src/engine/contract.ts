import type { SocketAddress } from '../base/address.js'

/**
 * What a listener's clients speak. `redirect`: TCP diverted by iptables REDIRECT, original destination from SO_ORIGINAL_DST or
 * IP6T_SO_ORIGINAL_DST; a plain TCP socket, because an MPTCP one answers EOPNOTSUPP. `socks`: server side of SOCKS5 (RFC 1928) over MPTCP.
 */
export type ListenerKind = 'redirect' | 'socks'

export interface ListenOptions {
  kind: ListenerKind
  /** IP literal. `::` listens on IPv6 only (IPV6_V6ONLY): IPv4 has a listener of its own. */
  address: string
  /** 0 lets the kernel choose; the answer says which. */
  port: number
  /** `socks` only: require user and password (RFC 1929). Default false. */
  authentication?: boolean
  /**
   * `socks` only: who may connect; default everyone. All others, but for this machine itself by the address that it connects to, get
   * a method of their own (0xFE, for a gateway `NOT_A_CLIENT`) and a RST at once, without an event or a place.
   */
  clients?: readonly AddressRange[]
  /**
   * `redirect` only: what would come back to us gets a RST at once, without an event or a place: this machine's own connections, and those
   * to the listener itself by whichever address. Default false.
   */
  refuseLoops?: boolean
}

export interface Listening extends SocketAddress {
  /** 'tcp' where a `socks` listener had to do without MPTCP because the kernel has none. */
  protocol: Protocol
}

export type Protocol = 'mptcp' | 'tcp'

/** One attempt to reach a destination for a connection. */
export interface DialSpec {
  /** 'mptcp' falls back to a TCP socket where the kernel has no MPTCP; `opened` says what it became. */
  protocol: Protocol
  remote: SocketAddress
  /** Source address: selects the WAN of the first subflow. The port is left to the kernel. */
  bind?: string
  /** Milliseconds from SYN until the connection is established. */
  connectTimeoutMs: number
  /** Client side of SOCKS5 on this connection; without it, `remote` is the destination itself. */
  socks?: {
    /** IP literal or domain name (at most 255 bytes). */
    host: string
    port: number
    username?: string
    password?: string
    /**
     * `sequential` waits for every answer. `pipelined` sends greeting, authentication, CONNECT and what the client has sent by
     * then in one go; the client's bytes are consumed only once the HAG has said yes, so a failed attempt loses nothing.
     */
    handshake: 'sequential' | 'pipelined'
    /**
     * Goes on with a connection that `prepare` made for the same protocol, remote, source and credentials, where one lives: the request
     * leaves at once, so the race is decided. One that ends before the HAG's reply is replaced by a new connection within the same
     * attempt, where the client has said nothing over it.
     */
    prepared?: boolean
    /** Milliseconds for each of the HAG's answers; counted anew, four times at most, while what was sent is being acknowledged. */
    timeoutMs: number
  }
}

/** What to find out about a HAG: connect, greeting and, with credentials, authentication; no CONNECT. */
export interface Probe extends Omit<DialSpec, 'socks'> {
  username?: string
  password?: string
  /** Milliseconds from the established connection until the HAG's last answer. */
  timeoutMs: number
}

export type ProbeResult =
  /** `protocol` as in `opened`, read after the HAG's answer; `connectMs` is about one round trip. */
  | { ok: true; local: SocketAddress; protocol: Protocol | undefined; connectMs: number }
  /** `connectMs`: set where it was connected. */
  | { ok: false; stage: 'connect' | 'greeting' | 'authentication'; failure: Failure; connectMs?: number }

export type ConnectResult =
  | { ok: true; fd: number; protocol: Protocol | undefined; connectMs: number }
  | { ok: false; failure: Failure }

export interface EngineOptions {
  /** Worker threads, 1 to 16. */
  workers: number
  /** Connections at once; above, accepting pauses and goes on below 95 % of it. */
  /** A `socks` client that has asked for nothing yet makes room for the next one: the oldest of the address that has the most of them. */
  maxConnections: number
  /**
   * Connections at once of one client address (of an IPv6 /64), counted from accept at a `redirect` listener, from the request at a `socks`
   * one; above, they get a RST, or the reply 2 (not allowed). Default: no limit.
   */
  maxConnectionsPerClient?: number
  /**
   * Bytes that all connections together may have the kernel hold, and those of one client half of it; near that, each one's buffers stay small.
   * Default: no limit.
   */
  bufferMemory?: number
  /** SO_MARK of every socket that it opens, for `ip rule ... fwmark`. Default: none. */
  mark?: number
  /** Milliseconds without a byte in either direction after which a relayed connection is aborted. */
  idleTimeoutMs: number
  /** `socks` listeners: milliseconds for the client's greeting, and for its credentials after that; for its request twelve times as long. */
  handshakeTimeoutMs: number
  /**
   * Milliseconds that the owner has for its answer to `accepted`, `credentials`, `request` and the last `failed`; then the client gets a RST,
   * and `closed` says `reset` with ETIMEDOUT. Default 60,000.
   */
  decisionTimeoutMs?: number
  /**
   * Called with at least one event, in the order in which each connection met them. What it throws ends nothing here: it becomes an
   * uncaught exception of the process.
   */
  onEvents(events: EngineEvent[]): void
}

/** Identifies a connection for the life of the engine; a safe integer, never used twice. */
export type ConnectionId = number

/**
 * What failed. `ETIMEDOUT` also stands for our own timeouts; in a SOCKS handshake, `EACCES` for credentials that were refused (or asked
 * for), `EPROTO` for an answer that is not SOCKS5.
 */
export interface Failure {
  /**
   * For instance `ECONNREFUSED`; `EPROTO` for an answer that is not SOCKS5; `EACCES` where the HAG refuses our credentials, or in
   * `greeting` asks for some that we were not given (no acceptable method); `NOT_A_CLIENT` where a
   * `bondsocks hag` does not list our address; `SOCKS_REPLY` where `reply` says why.
   */
  code: string
  errno: number
  syscall: string
}

/** Addresses that share the first `bits` bits with this one. */
export interface AddressRange {
  address: string
  bits: number
}

/** What to do with clients of `redirect` listeners about whom nothing needs to be decided. */
export interface FastPath extends Omit<DialSpec, 'socks'> {
  /** Above 0. */
  id: number
  /** The destination is the client's. */
  socks: Omit<NonNullable<DialSpec['socks']>, 'host' | 'port'>
  /** Milliseconds without an answer after which the caller is told, to race another way. */
  patienceMs: number
  /** The caller decides about these, as without an order; and about a client that was not redirected at all. */
  askAboutDestinations: readonly AddressRange[]
}

export type EngineEvent =
  /** A client arrived at a `redirect` listener and waits, unread, for `open` or `reset`. */
  | {
      type: 'accepted'
      connection: ConnectionId
      client: SocketAddress
      /** Where the client wanted to go. Equal to `local` where nothing was redirected. */
      destination: SocketAddress
      /** The address and port of ours that took it. */
      local: SocketAddress
      /**
       * The fast path was taken, by an attempt with number 0. `timedOut`: it has no answer yet, and the patience is over; otherwise its
       * `failed` or `opened` is the next event.
       */
      viaFastPath?: { id: number; timedOut: boolean }
    }
  /** So many clients have come by a fast path that lets them use prepared connections. */
  | { type: 'demand'; clients: number }
  /** `socks` listeners with authentication: answer with `authenticate`. Before `request`. */
  | { type: 'credentials'; connection: ConnectionId; client: SocketAddress; username: string; password: string }
  /** A SOCKS CONNECT is complete: answer with `open` (the reply follows by itself when it succeeds) or `refuse`. */
  | {
      type: 'request'
      connection: ConnectionId
      client: SocketAddress
      /** The address and port of ours that took it. */
      local: SocketAddress
      /** IP literal or domain name. */
      host: string
      port: number
    }
  /** An attempt succeeded and relaying has begun. */
  | {
      type: 'opened'
      connection: ConnectionId
      /** The number given to `open`. */
      attempt: number
      /** Our end of the new connection. */
      local: SocketAddress
      /** 'tcp' also where an MPTCP connection fell back; undefined where the kernel cannot tell (before 5.16). */
      protocol: Protocol | undefined
      /** Set where a prepared connection was used. */
      prepared?: true
    }
  /** An attempt failed; unless `early` is set the client still waits, all it sent still unread: `open` another way, `refuse` or `reset`. */
  | {
      type: 'failed'
      connection: ConnectionId
      attempt: number
      /** Attempts of this connection that are still under way. */
      left: number
      /**
       * Bytes of the client that left with a pipelined request and may have reached the server: they are never sent again, the client gets
       * a RST, and `closed` follows. Not set where the HAG has refused the request or us.
       */
      early?: number
      /** Where it failed. `request`: the HAG answered CONNECT with `reply` (RFC 1928 section 6), or did not answer it. */
      stage: 'connect' | 'greeting' | 'authentication' | 'request'
      failure: Failure
      reply?: number
    }
  /**
   * The connection is gone, its descriptors are closed. The last event of every connection, exactly one, and the only one of those that the
   * fast path served to their end: they are told of together, within a second.
   */
  | {
      type: 'closed'
      connection: ConnectionId
      /**
       * `end`: both directions ended, and what went over MPTCP has arrived; `client-reset` / `upstream-reset`: that side aborted, or took
       * nothing more of that (ETIMEDOUT), or was given up by `resetUpstreams` with ECONNRESET or by `resetStranded` with ENETDOWN, so the
       * other was too; `idle`;
       * `handshake`: a SOCKS client was too slow or spoke no SOCKS5; `refused`: as we were told, or because a SOCKS client asked for what
       * we do not do (BIND, UDP, a method of authentication); `reset`: as we were told, or because we were not told in time (ETIMEDOUT).
       */
      reason: 'end' | 'client-reset' | 'upstream-reset' | 'idle' | 'handshake' | 'refused' | 'reset'
      /** Set where an error ended it. */
      failure?: Failure
      client: SocketAddress
      /** Where a redirected client wanted to go; of a `socks` client, where it was opened to. */
      destination?: SocketAddress
      /** Id of the fast path that opened it, if nobody was asked. */
      fastPath?: number
      /** Bytes of payload from the client to the upstream, and back. */
      sent: number
      received: number
      /** Milliseconds since accept. */
      durationMs: number
    }
  /**
   * Accepting paused at a limit, or goes on. Once a change, not once a connection. `pipes` stops nobody: bytes are copied instead, which
   * takes more processor time. It is told once an hour at most.
   */
  | { type: 'limit'; limited: boolean; cause: 'connections' | 'descriptors' | 'memory' | 'pipes' }
  /** Clients were refused, the first since `takeRefusals` was called. */
  | { type: 'refused' }

/** Clients of one address (of an IPv6 /64) that were refused, without an event of their own. */
export interface Refusal {
  /**
   * `not-a-client`: not in `clients`; `method`: offered no way to log in that we take; `credentials`: not accepted; `share`: above `maxConnectionsPerClient`; `waited`: had asked for nothing yet when others needed its
   * place; by `refuseLoops`, `not-redirected`: to our own listener, `loop`: our own connection.
   */
  cause: 'not-a-client' | 'method' | 'credentials' | 'share' | 'waited' | 'not-redirected' | 'loop'
  count: number
  /** Left out: all addresses beyond the first 256. */
  client?: string
  /** Where the first of them wanted to go; of `not-redirected` and `loop`. */
  destination?: SocketAddress
}

export interface Subflow {
  local: SocketAddress
  remote: SocketAddress
  /** Acknowledged by the other end. */
  bytesSent: number
  bytesReceived: number
  /** Smoothed round-trip time, microseconds. */
  rttUs: number
  /** Packets that are out and not acknowledged. */
  unackedPackets: number
  /** Milliseconds since the last acknowledgement came; large on a subflow that is idle, too. */
  lastAckMs: number
  /** Retransmission timeouts in a row without an acknowledgement (RFC 6298 section 5). */
  timeouts: number
  /** Its SYN has no answer yet. */
  joining: boolean
}

export interface Inspection {
  connection: ConnectionId
  client: SocketAddress
  /** The upstream side: our end of the first subflow. undefined protocol: the kernel cannot tell. */
  local: SocketAddress
  remote: SocketAddress
  protocol: Protocol | undefined
  /** Milliseconds since accept. */
  ageMs: number
  /** As many subflows have joined as the kernel's limit allows. */
  full: boolean
  sent: number
  received: number
  /** Empty for plain TCP, and where the kernel does not tell (before 5.16). */
  subflows: Subflow[]
}

export interface EngineStats {
  connections: number
  /** Connections that relay, out of `connections`. */
  relaying: number
  /** Pipes that hold bytes now, and idle ones kept for reuse. */
  pipesInUse: number
  pipesPooled: number
  /** Bytes inside our pipes now. */
  bytesParked: number
}

export interface Engine {
  /**
   * Opens the listening sockets of all workers. Throws a system error (`code`, `errno`, `syscall`), EADDRINUSE also where another
   * process of ours holds the port with SO_REUSEPORT.
   */
  listen(options: ListenOptions): Listening
  /** Closes every listening socket; connections go on. */
  stopListening(): void
  /**
   * From now on this way is tried for new clients without asking; undefined: each is announced by `accepted` again. While it works out
   * `closed` is the only event for them. `accepted` comes late, with `viaFastPath`, where the way has failed, has no answer in time
   * (unless its request may have left) or has lost MPTCP.
   */
  setFastPath(fastPath: FastPath | undefined): void
  /**
   * Tries a way; `opened`, `failed` or `closed` follows. Called again while attempts of the connection are under way it is a race: the
   * first that has the HAG's answer to the greeting (with credentials: to those) in a sequential handshake, or that is connected where
   * there is none or a pipelined one, goes on alone. The others end at that moment without an event, because only one request may
   * leave; from then on `open` is ignored until the winner has failed, with `left` 0. `attempt` is the caller's number for it; an `open`
   * with the number of one that is under way is ignored. Where descriptors are scarce an attempt that joins fails with EMFILE.
   */
  dial(connection: ConnectionId, spec: DialSpec, attempt?: number): void
  /** Answers `credentials`; a refused client gets status 1 (RFC 1929 section 2) and is closed. */
  authenticate(connection: ConnectionId, accepted: boolean): void
  /** Answers `request` with a failure reply (RFC 1928 section 6), ends its attempts and closes; `closed` follows. */
  refuse(connection: ConnectionId, reply: number): void
  /** Aborts at any step: RST to the client and, where there is one, to the upstream; `closed` follows. Unknown ids are ignored. */
  reset(connection: ConnectionId): void
  /** Asks a HAG for a sign of life, on a connection of its own. Never rejects; after `close` it never settles. */
  probe(probe: Probe): Promise<ProbeResult>
  /**
   * Connects a socket and hands its descriptor over to the caller, who closes it; the engine forgets it. For what speaks another
   * protocol over an MPTCP socket that is bound to a WAN.
   */
  connect(spec: Omit<DialSpec, 'socks'>): Promise<ConnectResult>
  /** Connects and greets as `probe` does, and keeps the connection for an `open` that may use it. */
  prepare(probe: Probe): Promise<ProbeResult>
  /**
   * Closes all prepared connections but those that live, go over one of these ways, from the beginning or because they have joined it, and
   * are younger than `mostMs` milliseconds. Each counts for the first of its ways, and of each way the `most` youngest are kept. Says how
   * many are left of each, and the age in milliseconds of the youngest that its HAG had ended.
   */
  keepPrepared(probes: readonly Probe[], most: number, mostMs: number): { counts: number[]; endedMs?: number }
  /**
   * Sockets bound to these addresses leave by these devices whatever `ip rule` says, from now on; those of MPTCP only with `mptcpToo`. Of
   * them it is the first subflow: the others leave by the devices of their endpoints, from Linux 6.7 on. Replaces what was said before; addresses that are not named leave as the rules say.
   */
  useDevices(devices: readonly { address: string; device: string }[], mptcpToo: boolean): void
  /** Every attempt under way that is bound to this address fails at once with ENETDOWN: its WAN is lost. */
  abandon(source: string): void
  /**
   * Aborts every relayed and every prepared connection to this upstream, with a RST to the client, and lets attempts towards it fail with
   * ECONNRESET: of a HAG that died MPTCP says nothing, because a plain RST ends only a subflow. Resolves with the number of connections.
   */
  resetUpstreams(remote: SocketAddress): Promise<number>
  /**
   * Aborts, with a RST to the client, the relayed MPTCP connections that have no subflow at this moment: their WAN's endpoint was deleted
   * before another subflow existed, or the HAG reset the last one. Left alone they would take bytes for net.mptcp.close_timeout, and go
   * on should a subflow join within it. 0 where the kernel cannot tell (before 5.16). Resolves with their number.
   */
  resetStranded(): Promise<number>
  /**
   * Resolves with the number of relayed MPTCP connections of this age in milliseconds, or older, that have one subflow only, and that from
   * this address of ours. 0 where the kernel cannot tell (before 5.16).
   */
  countOnly(source: string, olderThanMs: number): Promise<number>
  /**
   * `closely`: over every subflow of the relayed connections to this upstream on which nothing moves, the kernel asks every second
   * whether the other end still knows it (TCP keepalive), so that a machine that was started anew can say no; otherwise as usual.
   */
  watchUpstreams(remote: SocketAddress, closely: boolean): void
  /**
   * Whole seconds without a packet after which the kernel asks so over every subflow of a relayed connection's upstream, from 1 to 32,767.
   * At first 300. What is relayed already follows within that time.
   */
  setKeepalive(seconds: number): void
  /** Relayed connections with their subflows, read at this moment; all of them, or those asked for. */
  inspect(connections?: ConnectionId[]): Promise<Inspection[]>
  /** The same of at most so many, those that moved something last, of this age in milliseconds and with so many bytes of payload at least. */
  inspectBusy(wanted: { max: number; olderThanMs: number; minBytes: number }): Promise<Inspection[]>
  stats(): EngineStats
  /** Who was refused since the last call. */
  takeRefusals(): Refusal[]
  /** Aborts what is left, ends the threads and closes every descriptor; no event follows. Idempotent. */
  close(): void
}

export interface Native {
  Engine: new (options: EngineOptions) => Engine
  /** SO_NETNS_COOKIE of the namespace we run in, in decimal: never reused until reboot, unlike an inode. */
  netnsCookie(): string
  /**
   * Takes the lock of an open file (flock(2)), or says at once that somebody else has it. It lasts until nobody has this descriptor open. `shared`: others may
   * share it. One that is held becomes the other kind or, where somebody else keeps it from that, is lost. */
  tryLock(fd: number, shared?: boolean): boolean
  /**
   * What kind of route the kernel has for a TCP connection to this IP address and port at this moment; `none`: unreachable. Some microseconds.
   * Throws a system error where the kernel cannot be asked.
   */
  routeTo(address: string, port?: number): 'unicast' | 'local' | 'broadcast' | 'anycast' | 'multicast' | 'none'
  /** undefined where an MPTCP socket can be made; else why not (`EINVAL`: kernel before 5.6, `EPROTONOSUPPORT`: not compiled in, `ENOPROTOOPT`: net.mptcp.enabled=0). */
  mptcpUnavailable(): string | undefined
  /** Socket options that this kernel did not take, how often, and the error of the last time. The engine goes on without them. */
  refusedOptions(): { option: string; code: string; count: number }[]
}

// Both src/native/ and dist/chunks/ lie two folders below the package's root.
