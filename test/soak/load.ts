/** The soak's ordinary clients: each request is sent once, and each byte of the answer is checked. Runs in an agent in the LAN. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { writeStream } from '../support/servers.js'
import { Check, streamSlice } from '../support/stream.js'
import { sleep } from '../support/wait.js'
import { Chance } from './random.js'

export interface Outcome {
  kind: string
  id: number
  /** From Date.now(), like `ended`. */
  begun: number
  ended: number
  /** If it failed: an errno, STALLED, or what was wrong with the bytes. */
  error?: string
  /** The client's, if it failed and had one. */
  port?: number
}

export interface Load {
  host: string
  port: number
  seed: number
}

/** A request fails as STALLED if no byte moves for so long. */
const stallMs = 20_000

const outcomes: Outcome[] = []
let running = 0
let goesOn = false
let lastId = 0
let chance = new Chance(0)

class Broken extends Error {}

/** One connection. Errors and silence reject the promise that is waited for. */
class Exchange {
  readonly socket: Socket
  private failure: Error | undefined
  private waiting: ((error?: Error) => void) | undefined
  private timer: NodeJS.Timeout | undefined
  port = 0

  constructor({ host, port }: Load, line: string) {
    this.socket = createConnection({ host, port, allowHalfOpen: true })
    this.socket.setNoDelay(true)
    this.socket.on('connect', () => (this.port = this.socket.localPort ?? 0))
    this.socket.on('error', (error: NodeJS.ErrnoException) => this.fail(new Broken(error.code ?? error.message)))
    // A socket that does not read gets no event of a RST.
    this.socket.on('data', () => {})
    this.socket.write(line)
  }

  private fail(error: Error): void {
    this.failure ??= error
    this.waiting?.(this.failure)
  }

  /** Waits, but ends early when the load is to pause, and throws when the connection has failed. */
  async idle(ms: number): Promise<void> {
    for (const until = Date.now() + ms; goesOn && this.failure === undefined && Date.now() < until; ) await sleep(50)
    if (this.failure !== undefined) throw this.failure
  }

  /** Resolves when `onData` returns true, or at the end. Silence is counted from the last byte in either direction. */
  receive(onData: (data: Buffer) => boolean | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const { socket } = this
      let moved = 0
      const finish = (error?: Error) => {
        clearInterval(this.timer)
        socket.off('data', take).off('end', over)
        this.waiting = undefined
        if (error === undefined) resolve()
        else reject(error)
      }
      const over = () => finish()
      const take = (data: Buffer) => {
        if (onData(data)) finish()
      }
      let still = 0
      this.timer = setInterval(() => {
        const now = socket.bytesRead + socket.bytesWritten - socket.writableLength
        still = now === moved ? still + 1000 : 0
        moved = now
        if (still >= stallMs) this.fail(new Broken('STALLED'))
      }, 1000)
      this.waiting = finish
      if (this.failure !== undefined) return finish(this.failure)
      socket.on('data', take).on('end', over)
    })
  }

  /**
   * The error if the end came too early. libuv takes a RST that comes with the last bytes for the end (uv__stream_io: a hang-up after a
   * partial read). But the kernel at once forgets the port of a connection that was reset, and remembers one that ended in order.
   */
  cutShort(what: string): Broken {
    const port = `:${this.port.toString(16).toUpperCase().padStart(4, '0')} `
    const known = ['tcp', 'tcp6'].some((table) => readFileSync(`/proc/net/${table}`, 'latin1').includes(port))
    return new Broken(known ? what : 'ECONNRESET')
  }

  /** Receives the stream of `seed` until the end, and throws unless it has exactly `bytes` intact bytes. */
  async expect(seed: number, bytes: number): Promise<void> {
    const check = new Check(seed)
    await this.receive((data) => {
      check.add(data)
      return false
    })
    if (check.isIntact(bytes)) return
    const what = `${check.bytes} of ${bytes} bytes, differs at ${check.differsAt}`
    throw check.differsAt === undefined && check.bytes < bytes ? this.cutShort(what) : new Broken(what)
  }

  /** Sends bytes, and throws unless the same bytes come back. */
  async echo(seed: number, at: number, bytes: number): Promise<void> {
    const sent = streamSlice(seed, at, bytes)
    this.socket.write(sent)
    const parts: Buffer[] = []
    let length = 0
    let isOver = true
    await this.receive((data) => {
      parts.push(data)
      length += data.length
      isOver = length < bytes
      return !isOver
    })
    if (isOver) throw this.cutShort(`the end after ${length} of ${bytes} bytes`)
    if (!Buffer.concat(parts).equals(sent)) throw new Broken('other bytes came back')
  }
}

type Request = (load: Load, id: number, chance: Chance, open: (line: string) => Exchange) => Promise<void>

async function get(id: number, bytes: number, open: (line: string) => Exchange) {
  const exchange = open(`${id} get ${bytes} 0\n`)
  await exchange.expect(id, bytes)
  exchange.socket.end()
}

/** Waits, but ends early when the load is to pause. */
async function idle(ms: number): Promise<void> {
  for (const until = Date.now() + ms; goesOn && Date.now() < until; ) await sleep(100)
}

const requests: Record<string, Request> = {
  short: (_, id, chance, open) => get(id, chance.size(100, 20_000), open),
  download: (_, id, chance, open) => get(id, chance.size(300_000, 4_000_000), open),

  upload: async (_, id, chance, open) => {
    const bytes = chance.size(100_000, 1_000_000)
    const exchange = open(`${id} put ${bytes} 0\n`)
    void writeStream(exchange.socket, id, bytes).then((isWhole) => isWhole && exchange.socket.end())
    let answer = ''
    await exchange.receive((data) => {
      answer += data.toString()
      return false
    })
    if (answer === '') throw exchange.cutShort('no answer')
    if (answer !== `${bytes} true\n`) throw new Broken(`the server had ${answer.trim()} of ${bytes} bytes`)
  },

  'half-closed': async (_, id, chance, open) => {
    const bytes = chance.size(1000, 100_000)
    const exchange = open(`${id} late ${bytes} ${chance.between(500, 8000)}\n`)
    exchange.socket.end()
    await exchange.expect(id, bytes)
  },

  echo: async (_, id, chance, open) => {
    const exchange = open(`${id} echo 0 0\n`)
    const until = Date.now() + chance.between(5000, 25_000)
    for (let at = 0; goesOn && Date.now() < until; ) {
      const bytes = chance.size(1, 5000)
      await exchange.echo(id, at, bytes)
      at += bytes
      await exchange.idle(chance.between(20, 400))
    }
    exchange.socket.end()
    await exchange.expect(id, 0)
  },

  idle: async (_, id, chance, open) => {
    const exchange = open(`${id} echo 0 0\n`)
    await exchange.echo(id, 0, 10)
    await exchange.idle(chance.between(5000, 45_000))
    await exchange.echo(id, 10, 10)
    exchange.socket.end()
    await exchange.expect(id, 0)
  },

  urgent: async ({ host, port }, id) => {
    const child = spawn('perl', ['-e', urgentScript, host, String(port), String(id)], { stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    child.stdout.on('data', (data: Buffer) => (said += data.toString()))
    await once(child, 'close')
    if (said !== 'ok') throw new Broken(said || 'nothing')
  },
}

/** Node cannot send urgent data. The server's end may read the byte inline or not at all. */
const urgentScript = `
use IO::Socket::INET; use Socket;
my ($host, $port, $id) = @ARGV;
$SIG{ALRM} = sub { print "STALLED"; exit };
$SIG{PIPE} = "IGNORE";
alarm 20;
my $socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port) or do { print "ECONN: $!"; exit };
# A RST is reported once, and a send may be the call that reports it.
sub say_or_end { defined send($socket, $_[0], $_[1] // 0) or do { print "ECONN: $!"; exit } }
say_or_end("$id echo 0 0\\none ");
say_or_end("!", MSG_OOB);
say_or_end("two ");
select(undef, undef, undef, 0.3);
say_or_end("three ");
say_or_end("!", MSG_OOB);
say_or_end("four");
shutdown($socket, 1);
my $all = "";
while (1) {
  my $read = sysread($socket, my $part, 4096);
  if (!defined $read) { print $!{ECONNRESET} ? "ECONNRESET" : "$!"; exit }
  last if $read == 0;
  $all .= $part;
}
$all =~ s/!//g;
print $all eq "one two three four" ? "ok" : "'$all' came back";
`

async function ask(kind: string, load: Load): Promise<void> {
  const request = requests[kind] as Request
  const outcome: Outcome = { kind, id: ++lastId, begun: Date.now(), ended: 0 }
  let exchange: Exchange | undefined
  running += 1
  try {
    await request(load, outcome.id, chance, (line) => (exchange = new Exchange(load, line)))
  } catch (error) {
    outcome.error = (error as Error).message
    if (!(error instanceof Broken)) throw error
    if (exchange !== undefined) outcome.port = exchange.port
    exchange?.socket.destroy()
  } finally {
    running -= 1
    outcome.ended = Date.now()
    outcomes.push(outcome)
  }
}

/** How many requests of each kind run at once. */
const steady: Record<string, number> = { download: 2, upload: 1, echo: 12, idle: 40, 'half-closed': 8, urgent: 1 }
const shortsPerSecond = 12
const burst = 80

async function keep(kind: string, load: Load): Promise<void> {
  await idle(chance.between(0, 3000))
  while (goesOn) {
    await ask(kind, load)
    await idle(chance.between(50, 1500))
  }
}

async function arrive(load: Load): Promise<void> {
  for (let turn = 1; goesOn; turn++) {
    const count = turn % 100 === 0 ? burst : Math.round(chance.next() * 2 * (shortsPerSecond / 10))
    for (let i = 0; i < count; i++) void ask('short', load)
    await sleep(100)
  }
}

export const soakLoad = {
  /** Starts the load, which runs until soakPause. The first call's `seed` determines the random choices. */
  soakLoad: async (load: Load): Promise<void> => {
    goesOn = true
    if (lastId === 0) chance = new Chance(load.seed)
    void arrive(load)
    for (const [kind, count] of Object.entries(steady)) for (let i = 0; i < count; i++) void keep(kind, load)
  },

  /** Starts no more requests. Resolves when those that run have ended, at the latest after a minute; returns how many still run. */
  soakPause: async (): Promise<number> => {
    goesOn = false
    for (const until = Date.now() + 60_000; running > 0 && Date.now() < until; ) await sleep(50)
    return running
  },

  /** The requests that have ended since the last call. */
  soakOutcomes: async (): Promise<Outcome[]> => outcomes.splice(0),
}
