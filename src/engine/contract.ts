import type { SocketAddress } from '../base/address.js'
import type { ConnectionId, EngineEvent, Failure, Protocol, Refusal } from './events.js'

export type * from './events.js'

/**
 * What a listener's clients speak. `redirect`: TCP that iptables REDIRECT diverted; SO_ORIGINAL_DST or IP6T_SO_ORIGINAL_DST tells the original
 * destination. It is a plain TCP socket, because an MPTCP one answers EOPNOTSUPP. `socks`: server side of SOCKS5 (RFC 1928) over MPTCP.
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
   * `socks` only: who may connect; default everyone. All others get the method 0xFE (a gateway's `NOT_A_CLIENT`) and a RST at once, without an
   * event or a place. This machine's own connections to the address that it connects from are always accepted.
   */
  clients?: readonly AddressRange[]
  /**
   * `redirect` only: this machine's own connections, and connections to the listener's own port, would come back to us. They get a RST at
   * once, without an event or a place. Default false.
   */
  refuseLoops?: boolean
}

export interface Listening extends SocketAddress {
  /** 'tcp' for a `socks` listener if the kernel has no MPTCP. */
  protocol: Protocol
}

/** One attempt to reach a destination for a connection. */
export interface DialSpec {
  /** With 'mptcp' it is a TCP socket if the kernel has no MPTCP; `opened` says what it became. */
  protocol: Protocol
  remote: SocketAddress
  /** Source address: selects the WAN of the first subflow. The kernel chooses the port. */
  bind?: string
  /** Milliseconds from SYN until the connection is established. */
  connectTimeoutMs: number
  /** Client side of SOCKS5 on this connection. Without it, `remote` is the destination itself. */
  socks?: {
    /** IP literal or domain name (at most 255 bytes). */
    host: string
    port: number
    username?: string
    password?: string
    /**
     * `sequential` waits for every answer. `pipelined` sends greeting, authentication, CONNECT and what the client has sent by then at once.
     * The client's bytes are consumed only when the HAG has said yes, so a failed attempt loses nothing.
     */
    handshake: 'sequential' | 'pipelined'
    /**
     * If a connection lives that `prepare` made for the same protocol, remote, source and credentials, use it: the request leaves at once,
     * so the race is decided. If that connection ends before the HAG's reply, and the client has said nothing over it, the same attempt goes
     * on with a new one.
     */
    prepared?: boolean
    /** Milliseconds for each answer of the HAG; counted anew, at most four times, while it acknowledges what we send. */
    timeoutMs: number
  }
}

/** What to find out about a HAG: connect, greeting and, with credentials, authentication; no CONNECT. */
export interface Probe extends Omit<DialSpec, 'socks'> {
  username?: string
  password?: string
  /** Milliseconds from the established connection until the HAG's last answer. */
  timeoutMs: number
  /**
   * So many milliseconds longer the connection is watched, and the result is how that ends. The kernel asks every second whether the HAG's
   * machine still answers; nobody is woken meanwhile, and nothing else is sent. Only for `probe` with the protocol 'tcp'. Default: 0.
   */
  watchMs?: number
}

export type ProbeResult =
  /** `protocol` as in `opened`, read after the HAG's answer; `connectMs` is about one round trip. */
  | { ok: true; local: SocketAddress; protocol: Protocol | undefined; connectMs: number }
  /** `connectMs`: set if it was connected. `watch`: it was lost while it was watched; ETIMEDOUT: the HAG's machine has fallen silent. */
  | { ok: false; stage: 'connect' | 'greeting' | 'authentication' | 'watch'; failure: Failure; connectMs?: number }

export type ConnectResult =
  | { ok: true; fd: number; protocol: Protocol | undefined; connectMs: number }
  | { ok: false; failure: Failure }

export interface EngineOptions {
  /** Worker threads, 1 to 16. */
  workers: number
  /**
   * Connections at once. At the limit accepting pauses, until fewer than 95 % are left. A `socks` client that has asked for nothing yet makes
   * room for the next one: the oldest of the address that has the most of them.
   */
  maxConnections: number
  /**
   * Connections at once of one client address (IPv6: of one /64), counted from accept at a `redirect` listener, from the request at a `socks`
   * one. Above, a client gets a RST, or the reply 2 (not allowed). If it is less than `maxConnections`, a client gets one of their last quarter
   * only while it has fewer than are free. Default: no limit.
   */
  maxConnectionsPerClient?: number
  /**
   * Bytes that the kernel may hold for all connections together; half of them for one client. Near that limit, each connection's buffers stay
   * small. Default: no limit.
   */
  bufferMemory?: number
  /** SO_MARK of every socket that it opens, for `ip rule ... fwmark`. Default: none. */
  mark?: number
  /** Milliseconds without a byte in either direction after which a relayed connection is aborted. */
  idleTimeoutMs: number
  /** `socks` listeners: milliseconds for the client's greeting, and then for its credentials; twelve times as long for its request. */
  handshakeTimeoutMs: number
  /**
   * Milliseconds that the owner has for its answer to `accepted`, `credentials`, `request` and the last `failed`. Then the client gets a RST,
   * and `closed` says `reset` with ETIMEDOUT. Default 60,000.
   */
  decisionTimeoutMs?: number
  /**
   * Called with at least one event; those of one connection come in the order in which they happened. If it throws, that is an uncaught
   * exception of the process; the engine goes on.
   */
  onEvents(events: EngineEvent[]): void
}

/** Addresses that share the first `bits` bits with this one. */
export interface AddressRange {
  address: string
  bits: number
}

/** What to do with clients of `redirect` listeners without asking the owner. */
export interface FastPath extends Omit<DialSpec, 'socks'> {
  /** Above 0. */
  id: number
  /** The destination is the client's. */
  socks: Omit<NonNullable<DialSpec['socks']>, 'host' | 'port'>
  /** Milliseconds without an answer after which the owner is told, to race another path. */
  patienceMs: number
  /** The owner is asked about clients to these, as it is without a fast path, and about clients that were not redirected. */
  askAboutDestinations: readonly AddressRange[]
}

export interface Subflow {
  local: SocketAddress
  remote: SocketAddress
  /** Acknowledged by the other end. */
  bytesSent: number
  bytesReceived: number
  /** Smoothed round-trip time, microseconds. */
  rttUs: number
  /** Packets that were sent and not acknowledged. */
  unackedPackets: number
  /** Milliseconds since the last acknowledgement; large on an idle subflow, too. */
  lastAckMs: number
  /** Retransmission timeouts in a row without an acknowledgement (RFC 6298 section 5). */
  timeouts: number
  /** Its SYN has no answer yet. */
  joining: boolean
  /** With data, and those of them that were sent once more because they seemed lost. */
  packetsSent: number
  packetsSentAgain: number
}

export interface Inspection {
  connection: ConnectionId
  client: SocketAddress
  /** The upstream side: our end of it (of the first subflow), and the other one. */
  local: SocketAddress
  remote: SocketAddress
  /** Of the side that may be MPTCP, as are the subflows: to the HAG or, on a HAG, the client. undefined: the kernel cannot tell. */
  protocol: Protocol | undefined
  /** Milliseconds since accept. */
  ageMs: number
  /** As many subflows have joined as the kernel's limit allows. */
  full: boolean
  sent: number
  received: number
  /** Empty for plain TCP, and if the kernel does not tell (before 5.16). */
  subflows: Subflow[]
}

export interface EngineStats {
  connections: number
  /** Those of `connections` that relay. */
  relaying: number
  /** Pipes that hold bytes now, and idle ones kept for reuse. */
  pipesInUse: number
  pipesPooled: number
  /** Bytes in our pipes now. */
  bytesParked: number
  /** Milliseconds since a client came or a byte of payload moved; at first since the start. */
  calmMs: number
}

export interface Engine {
  /**
   * Opens the listening sockets of all workers. Throws a system error (`code`, `errno`, `syscall`); EADDRINUSE also if another process of ours
   * holds the port with SO_REUSEPORT.
   */
  listen(options: ListenOptions): Listening
  /** Closes every listening socket; connections go on. */
  stopListening(): void
  /**
   * From now on, new clients are dialled over this path without asking; undefined: `accepted` announces each client again. If it works,
   * `closed` is the only event of a connection. `accepted` comes late, with `viaFastPath`, if the path failed, has no answer in time (unless
   * its request may have left) or fell back from MPTCP.
   */
  setFastPath(fastPath: FastPath | undefined): void
  /**
   * Tries a path; `opened`, `failed` or `closed` follows. A second call while attempts of the connection are under way makes it a race. With
   * a sequential handshake the winner is the first that has the HAG's answer to the greeting (to the credentials, if there are any); otherwise
   * the first that is connected. The others end at that moment without an event, because only one request may leave. From then on `dial` is
   * ignored until the winner has failed, with `left` 0. `attempt` is the caller's number for it; a `dial` with the number of an attempt under
   * way is ignored. If descriptors are scarce, an attempt that would join a race fails with EMFILE.
   */
  dial(connection: ConnectionId, spec: DialSpec, attempt?: number): void
  /** Answers `credentials`; a refused client gets status 1 (RFC 1929 section 2) and is closed. */
  authenticate(connection: ConnectionId, accepted: boolean): void
  /** Answers `request` with a failure reply (RFC 1928 section 6), ends its attempts and closes; `closed` follows. */
  refuse(connection: ConnectionId, reply: number): void
  /** Aborts at any step: RST to the client and to the upstream, if there is one; `closed` follows. Unknown ids are ignored. */
  reset(connection: ConnectionId): void
  /** Asks a HAG for a sign of life, on a connection of its own. Never rejects; after `close` it never settles. */
  probe(probe: Probe): Promise<ProbeResult>
  /**
   * Connects a socket and hands its descriptor over to the caller, who closes it; the engine forgets it. For other protocols over an MPTCP
   * socket that is bound to a WAN.
   */
  connect(spec: Omit<DialSpec, 'socks'>): Promise<ConnectResult>
  /** Connects and greets as `probe` does, and keeps the connection for a `dial` that may use it. */
  prepare(probe: Probe): Promise<ProbeResult>
  /**
   * Closes prepared connections that are not needed. Kept are those that live, are younger than `maxAgeMs` milliseconds, and use the path of one
   * of these probes, with their first subflow or one that joined. Each counts for the first path that it uses, and the `max` youngest of each
   * path are kept. Returns how many are left of each path, and the age in milliseconds of the youngest that its HAG had ended.
   */
  keepPrepared(probes: readonly Probe[], max: number, maxAgeMs: number): { counts: number[]; endedMs?: number }
  /**
   * From now on, sockets bound to these addresses leave by these devices, whatever `ip rule` says; MPTCP sockets only with `mptcpToo`, and only
   * their first subflow: from Linux 6.7 on, the others leave by the devices of their endpoints. Replaces the former list.
   */
  useDevices(devices: readonly { address: string; device: string }[], mptcpToo: boolean): void
  /** Every attempt under way that is bound to this address fails at once with ENETDOWN: its WAN is lost. */
  abandon(source: string): void
  /**
   * Aborts every relayed connection to this address, with a RST to the client, and every prepared one; attempts fail with ECONNRESET. Needed
   * when a HAG died, because MPTCP does not notice: a plain RST ends only a subflow. Resolves with the number of connections.
   */
  resetConnectionsTo(remote: SocketAddress): Promise<number>
  /**
   * Aborts, with a RST to the client, the relayed MPTCP connections that have no subflow now: their WAN's endpoint was deleted before another
   * subflow existed, or the HAG reset the last one. The kernel would take their bytes for net.mptcp.close_timeout, and go on if a subflow
   * joined within that time. Resolves with their number; 0 if the kernel cannot tell (before 5.16).
   */
  resetStranded(): Promise<number>
  /**
   * Resolves with the number of relayed MPTCP connections of at least this age in milliseconds whose only subflow is from this address of ours.
   * 0 if the kernel cannot tell (before 5.16).
   */
  countOnly(source: string, olderThanMs: number): Promise<number>
  /**
   * `closely`: the kernel asks every second, over every idle subflow of the relayed connections to this address, whether the other end still
   * knows it (TCP keepalive), so that a machine that was restarted can say no. Otherwise as usual.
   */
  watchConnectionsTo(remote: SocketAddress, closely: boolean): void
  /**
   * Whole seconds without a packet (1 to 32,767, at first 300) after which the kernel asks so over every subflow of a relayed connection's
   * upstream. Connections that are relayed already follow within that time.
   */
  setKeepalive(seconds: number): void
  /** Relayed connections with their subflows, read at this moment; all of them, or those asked for. */
  inspect(connections?: ConnectionId[]): Promise<Inspection[]>
  /** At most `max` of those that are at least so old, and have relayed at least so many bytes of payload: those that moved a byte last. */
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
   * Takes the lock of an open file (flock(2)); false if somebody else has it. It lasts until nobody has this descriptor open. A `shared` lock
   * is one that others may share. If we hold one of the other kind it is converted, or lost if somebody else prevents that.
   */
  tryLock(fd: number, shared?: boolean): boolean
  /**
   * What kind of route the kernel has for a TCP connection to this IP address and port at this moment; `none`: unreachable. Takes some
   * microseconds. Throws a system error if the kernel cannot be asked.
   */
  routeTo(address: string, port?: number): 'unicast' | 'local' | 'broadcast' | 'anycast' | 'multicast' | 'none'
  /**
   * undefined if an MPTCP socket can be made; otherwise why not: `EINVAL`: kernel before 5.6, `EPROTONOSUPPORT`: not compiled in,
   * `ENOPROTOOPT`: net.mptcp.enabled=0.
   */
  mptcpUnavailable(): string | undefined
  /** Socket options that this kernel did not take, how often, and the last error. The engine goes on without them. */
  refusedOptions(): { option: string; code: string; count: number }[]
}
