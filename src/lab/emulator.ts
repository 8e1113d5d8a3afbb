/** What the lab's addon offers, apart from the product's, so that gateway and HAG carry nothing of it. */
/** One direction of an emulated link. */
export interface LinkDirection {
  /**
   * Bits per second on the line, where a packet takes its IP bytes and 14 bytes of Ethernet header, as in netem on a veth. So of a full
   * packet's 1514 bytes MPTCP carries 1428 of payload: 94.3 % of the rate. 0 is unlimited.
   */
  rate: number
  /** Microseconds from the last bit sent to arrival. */
  delayUs: number
  /** Bytes, counted as for `rate`, that may wait for the line; what does not fit is dropped (tail drop). */
  queueBytes: number
  /** Probability of losing a packet, 0 to 1. 1 is a silent black hole. */
  loss: number
}

export interface LinkEnd {
  /** Path of a network namespace, for instance `/run/netns/x`. */
  netns: string
  /** Name of the TUN device that is made there. */
  device: string
  mtu?: number
}

export interface LinkStats {
  /** Packets and bytes delivered, from the first end to the second and back, and packets dropped. */
  forward: { packets: number; bytes: number; dropped: number }
  backward: { packets: number; bytes: number; dropped: number }
}

/** Two TUN devices in two namespaces with a delay line of our own between them: a lab's link where the kernel has no netem. */
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
