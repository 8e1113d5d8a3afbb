/** What tests have the other ends of the fake engine's connections do, and what it remembers of each. */
import { isInside, parseCidr, type SocketAddress } from '../../src/base/address.js'
import type {
  ConnectResult,
  DialSpec,
  EngineEvent,
  FastPath,
  Inspection,
  ListenOptions,
  Probe,
  ProbeResult,
} from '../../src/engine/contract.js'

type Failed = Extract<EngineEvent, { type: 'failed' }>
export type Answer = 'opened' | 'silence' | Omit<Failed, 'type' | 'connection' | 'attempt' | 'left'>

export interface FarSide {
  /** Addresses of this machine, for `refuseLoops`. */
  own?: readonly string[]
  /** What an attempt meets; default 'opened'. */
  answer?(spec: DialSpec): Answer
  probe?(probe: Probe): ProbeResult
  connect?(spec: Omit<DialSpec, 'socks'>): ConnectResult
  inspect?(): Inspection[]
  /** Thrown by `listen`. */
  listen?(options: ListenOptions): Error | undefined
}

export type Accepted = Extract<EngineEvent, { type: 'accepted' }>

export interface FakeConnection {
  client: SocketAddress
  /** Where a redirected client wanted to go. */
  destination?: SocketAddress
  /** Not announced: it takes the fast path. */
  fastPath?: { id: number; accepted: Accepted; timer: NodeJS.Timeout } | undefined
  state: 'waiting' | 'relaying'
  /** Those under way, by number. */
  attempts: Map<number, DialSpec>
  /** The address it was opened to. */
  remote?: SocketAddress
  /** The race is decided. */
  committed: boolean
  /** It uses a prepared connection. */
  prepared?: true
  /** Called once when the client learns that it is over. */
  over?: (how: 'end' | 'reset' | number) => void
}

export const failure = (stage: Failed['stage'], code: string, reply?: number): Answer => ({
  stage,
  failure: { code, errno: 0, syscall: stage === 'connect' ? 'connect' : 'recv' },
  ...(reply === undefined ? {} : { reply }),
})

export const preparedName = ({ protocol, remote, bind, username }: Pick<Probe, 'protocol' | 'remote' | 'bind' | 'username'>) =>
  JSON.stringify([protocol, remote.address, remote.port, bind, username])

export const isIn = (address: string, networks: FastPath['askAboutDestinations']) =>
  isInside(
    address,
    networks.flatMap(({ address, bits }) => parseCidr(`${address}/${Math.min(bits, address.includes(':') ? 128 : 32)}`) ?? []),
  )

/** Lets everything happen that is under way in the fake. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 12; round++) await new Promise((resolve) => setImmediate(resolve))
}
