/**
 * Finds out whether a WAN carries full-size packets. If a tunnel on its path drops them without an ICMP message, greetings pass and
 * downloads hang.
 */
import { Socket } from 'node:net'
import type { Family } from '../../base/address.js'
import { Alarm } from '../../base/alarm.js'
import { pause } from '../../base/pause.js'
import type { Engine } from '../../engine/contract.js'
import type { Target } from '../../engine/probe.js'
import type { WanFact } from '../facts.js'
import { isUsable, type WanState } from '../model.js'

/**
 * Each probe takes some 2 kB: 1.5 MB a month, or 0.25 MB on a metered WAN. A path that drops them is probed more often, so that it is back
 * soon.
 */
const againMs = { free: 3600_000, metered: 6 * 3600_000 }
const narrowAgainMs = { free: 30_000, metered: 600_000 }
const unknownAgainMs = 60_000
/** At the start the HAGs are asked first. */
const startMs = 500
/** In this time the kernel repeats the packet three times; it begins to try smaller ones (tcp_mtu_probing) only after 3 s. */
const answerMs = 2000
/** More than a segment of any WAN; jumbo frames are for the LAN only. */
const fillBytes = 1600

/** What is known of a WAN in one family. */
interface KnownLink {
  readonly family: Family
  readonly metered: boolean
  readonly address: string | undefined
  readonly health: { readonly state: WanState }
  readonly isNarrow: boolean
}

export interface FullSizeOptions {
  engine: Pick<Engine, 'connect'>
  links(): readonly KnownLink[]
  /** Whom to ask, the first one first. */
  hags(family: Family): readonly Target['hag'][]
  report(fact: WanFact): void
  /** Tests pass their own. */
  ask?: typeof passesFullSize
}

export class FullSize {
  readonly #options: FullSizeOptions
  /** When each is to be asked, by its address. */
  #dueAt = new Map<string, number>()
  readonly #alarm = new Alarm()

  constructor(options: FullSizeOptions) {
    this.#options = options
  }

  /** To be called when routes or links have changed: full-size packets may pass now. */
  checkNow(): void {
    for (const { address, isNarrow } of this.#options.links()) if (isNarrow && address !== undefined) this.#dueAt.set(address, 0)
    this.look()
  }

  /** To be called when links or their states have changed. */
  look(): void {
    this.#alarm.ring()
  }

  /** Runs until the signal. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    await pause(startMs, signal)
    while (!signal.aborted) {
      const links = this.#options.links()
      this.#dueAt = new Map([...this.#dueAt].filter(([bind]) => links.some(({ address }) => address === bind)))
      const usable = links.flatMap((link) =>
        isUsable(link.health) && link.address !== undefined ? [{ link, bind: link.address }] : [],
      )
      const due = usable.filter(({ bind }) => this.#dueIn(bind) <= 0)
      await Promise.all(due.map(({ link, bind }) => this.#askOver(link, bind, signal)))
      if (due.length === 0) await this.#alarm.wait(Math.min(...usable.map(({ bind }) => this.#dueIn(bind))), signal)
    }
  }

  #dueIn(bind: string): number {
    return (this.#dueAt.get(bind) ?? Number.NEGATIVE_INFINITY) - performance.now()
  }

  async #askOver({ family, metered, isNarrow: wasNarrow }: KnownLink, bind: string, signal: AbortSignal): Promise<void> {
    const { engine, hags, report, ask: passesOver = passesFullSize } = this.#options
    const [hag] = hags(family)
    const ask = () => (hag === undefined ? undefined : passesOver(engine, { hag, bind }))
    let passes = await ask()
    // The packet and all its repetitions may have been lost.
    if (passes === false && !wasNarrow) passes = await ask()
    if (signal.aborted) return
    const cost = metered ? 'metered' : 'free'
    const isNarrow = passes === undefined ? wasNarrow : !passes
    const afterMs = passes === undefined ? unknownAgainMs : (isNarrow ? narrowAgainMs : againMs)[cost]
    this.#dueAt.set(bind, performance.now() + afterMs)
    if (isNarrow !== wasNarrow) report({ type: 'full-size-seen', bind, passes: !isNarrow })
  }
}

/** Undefined if the HAG does not answer small packets either. */
export async function passesFullSize(engine: Pick<Engine, 'connect'>, { hag, bind }: Target): Promise<boolean | undefined> {
  const { address, port, username, password = '' } = hag
  const connected = await engine.connect({ protocol: 'tcp', remote: { address, port }, bind, connectTimeoutMs: answerMs })
  if (!connected.ok) return undefined
  const socket = new Socket({ fd: connected.fd })
  /** Whether anything came: an answer, an end, or a reset. */
  const reacts = (size: number) =>
    new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), answerMs)
      const done = (is: boolean) => {
        clearTimeout(timer)
        resolve(is)
      }
      let seen = 0
      socket.on('data', ({ length }) => {
        seen += length
        if (seen >= size) done(true)
      })
      socket.on('close', () => done(true))
    })
  try {
    socket.on('error', () => {})
    socket.setNoDelay(true)
    const text = (value: string) => [Buffer.byteLength(value), ...Buffer.from(value)]
    const handshake = [
      [5, 1, username === undefined ? 0 : 2],
      ...(username === undefined ? [] : [[1, ...text(username), ...text(password)]]),
    ]
    for (const words of handshake) {
      const isAnswered = reacts(2)
      socket.write(Buffer.from(words))
      if (!(await isAnswered) || socket.destroyed) return undefined
      socket.removeAllListeners('data')
    }
    // A request for a destination that each HAG refuses at once (capabilities.ts), filled up to a segment.
    const request = Buffer.alloc(fillBytes)
    request.set([5, 1, 0, 1, 255, 255, 255, 255, 0, 1])
    const isAnswered = reacts(1)
    socket.write(request)
    return await isAnswered
  } finally {
    socket.destroy()
  }
}
