/**
 * The engine in a process of its own, for tests of limits, exits and namespaces. The last argument is a Setup in JSON; on standard output
 * comes `listening PORT`, and then a line of JSON for each event.
 */
import type { DialSpec, EngineOptions, FastPath, ListenOptions } from '../../src/engine/contract.js'
import { native } from '../../src/engine/load.js'

export interface Setup {
  options?: Partial<EngineOptions>
  listen?: ListenOptions
  /** Where every `redirect` client goes; a `socks` client goes where it asks to. */
  spec?: DialSpec
  fastPath?: FastPath
  /** Prints all inspections every 100 ms. */
  inspect?: boolean
  // On SIGUSR2 it resets stranded connections and says how many.
  /** What it does once it listens: `close` the engine, `exit` without that, or stay. */
  finish?: 'close' | 'exit'
}

const say = (value: unknown) => console.log(typeof value === 'string' ? value : JSON.stringify(value))

if (process.argv[2] !== undefined) {
  const setup = JSON.parse(process.argv[2]) as Setup
  const engine = new native.Engine({
    workers: 2,
    maxConnections: 1000,
    idleTimeoutMs: 60_000,
    handshakeTimeoutMs: 5000,
    ...setup.options,
    onEvents: (events) => {
      for (const event of events) {
        say(event.type === 'refused' ? { ...event, refusals: engine.takeRefusals() } : event)
        if (event.type === 'accepted' && setup.spec) engine.dial(event.connection, setup.spec)
        if (event.type === 'request') {
          engine.dial(event.connection, {
            protocol: 'tcp',
            remote: { address: event.host, port: event.port },
            connectTimeoutMs: 2000,
          })
        }
      }
    },
  })
  engine.setFastPath(setup.fastPath)
  if (setup.listen) say(`listening ${engine.listen(setup.listen).port}`)
  if (setup.inspect) setInterval(async () => say({ inspections: await engine.inspect() }), 100)
  process.on('SIGUSR2', async () => say({ stranded: await engine.resetStranded() }))
  if (setup.finish === 'close') engine.close()
  if (setup.finish === 'exit') process.exit(0)
}
