/** What the lab's addon offers. It is an addon of its own, so that gateway and HAG contain nothing of the lab. */
/** One direction of an emulated link. */
export interface LinkDirection {
  /**
   * Bits per second on the line; 0 is unlimited. A packet counts with its IP bytes and 14 bytes of Ethernet header, as with netem on a
   * veth. So a full packet of 1514 bytes carries 1428 bytes of MPTCP payload: 94.3 % of the rate.
   */
  rate: number
  /** Microseconds from the last bit sent to arrival. */
  delayUs: number
  /** Bytes, counted as for `rate`, that may wait for the line; more are dropped (tail drop). */
  queueBytes: number
  /** Probability of losing a packet, 0 to 1. 1 is a silent black hole. */
  loss: number
}

export interface LinkEnd {
  /** Path of a network namespace, for instance `/run/netns/x`. */
  netns: string
  /** Name of the TUN device to make there. */
  device: string
  mtu?: number
}

export interface LinkStats {
  /** Packets and bytes delivered, from the first end to the second and back, and packets dropped. */
  forward: { packets: number; bytes: number; dropped: number }
  backward: { packets: number; bytes: number; dropped: number }
}

/** Two TUN devices in two namespaces, and our own delay line between them: a lab's link if the kernel has no netem. */
export interface LinkEmulator {
  /** Changes a direction at once; packets on their way keep their arrival time. */
  set(direction: 'forward' | 'backward', parameters: LinkDirection): void
  /** Carrier of an end's device (TUNSETCARRIER): false is a pulled plug. */
  setCarrier(end: 'first' | 'second', up: boolean): void
  stats(): LinkStats
  /** Removes both devices. Idempotent. */
  close(): void
}

export interface EmulatorAddon {
  LinkEmulator: new (first: LinkEnd, second: LinkEnd, forward: LinkDirection, backward: LinkDirection) => LinkEmulator
}
