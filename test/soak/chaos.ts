/** What befalls the lab while the soak's load runs: one WAN at a time, and the HAG. Never both WANs. */
import type { World } from '../support/hybrid.js'
import type { Program } from '../support/process.js'
import { sleep } from '../support/wait.js'
import type { Chance } from './random.js'

/** When a request may fail: it has to have ended in the window. */
export interface Window {
  what: string
  from: number
  until: number
  /** Meanwhile a connection may go to its server without a HAG, over one WAN. */
  isDirect: boolean
}

const wans = ['dsl', 'lte'] as const
type Cut = { what: string; wan: (typeof wans)[number]; how: 'carrier' | 'blackHole' }
type Restart = { what: string; signal: 'SIGTERM' | 'SIGKILL' }
const cuts: Cut[] = wans.flatMap((wan) => [
  { what: `link down: ${wan}`, wan, how: 'carrier' },
  { what: `black hole: ${wan}`, wan, how: 'blackHole' },
])
const restarts: Restart[] = [
  { what: 'HAG ended', signal: 'SIGTERM' },
  { what: 'HAG killed', signal: 'SIGKILL' },
]

/** A connection whose only subflow is lost with its WAN is reset within 2 s of the WAN's being found down, which takes about a second. */
const cutMs = 4000
/** docs/behaviour.md: a HAG that died resets what went over it, at the latest when another one answers in its place. Its clients are found one by one. */
const hagMs = 12_000

export class Chaos {
  readonly windows: Window[] = []
  readonly counts: Record<string, number> = {}
  private deck: (Cut | Restart)[] = []
  private isOver = false

  constructor(
    private readonly world: World,
    private readonly chance: Chance,
    /** Of the HAG that runs now. */
    private hag: Program,
    private readonly onHag: (hag: Program) => void,
    private readonly say: (what: string) => void,
  ) {}

  /** Blow after blow, until `stop` is called; resolves when all is whole again. */
  async run(): Promise<void> {
    this.isOver = false
    while (await this.rest(this.chance.between(2000, 6000))) {
      if (this.deck.length === 0) this.deck = this.shuffle()
      const blow = this.deck.shift()
      if (blow === undefined) return
      this.counts[blow.what] = (this.counts[blow.what] ?? 0) + 1
      this.say(blow.what)
      if ('signal' in blow) await this.restartHag(blow)
      else await this.cut(blow)
    }
  }

  stop(): void {
    this.isOver = true
  }

  /** Of both kinds in a short run, too. */
  private shuffle(): (Cut | Restart)[] {
    const [one, two] = this.chance.shuffled(restarts)
    const [first, second, third, fourth] = this.chance.shuffled(cuts)
    return [first, one, second, third, two, fourth].filter((blow) => blow !== undefined)
  }

  private async rest(ms: number): Promise<boolean> {
    for (const until = Date.now() + ms; !this.isOver && Date.now() < until; ) await sleep(100)
    return !this.isOver
  }

  private async cut({ what, wan, how }: Cut): Promise<void> {
    const { lab } = this.world
    const from = Date.now()
    this.windows.push({ what, from, until: from + cutMs, isDirect: false })
    await (how === 'carrier' ? lab.carrier(wan, false) : lab.blackHole(wan, true))
    await sleep(this.chance.between(2500, 8000))
    await (how === 'carrier' ? lab.carrier(wan, true) : lab.blackHole(wan, false))
    // Until it is back in the bundle the other one must not go.
    await sleep(6000)
  }

  private async restartHag({ what, signal }: Restart): Promise<void> {
    const window = { what, from: Date.now(), until: Number.POSITIVE_INFINITY, isDirect: true }
    this.windows.push(window)
    await this.hag.end(signal)
    await sleep(this.chance.between(0, 3000))
    this.hag = await this.world.startHag(hagKeys)
    this.onHag(this.hag)
    window.until = Date.now() + hagMs
    await sleep(hagMs)
  }
}

/** An orderly end must not take as long as its longest connection. */
export const hagKeys = { drain_seconds: 2 }
