/** What gateway and HAG begin with: a log, signals, and an engine that says which limits are reached and who is refused. */
import { type EngineLimits, engineLimits, limitTexts } from '../config/defaults.js'
import type { GatewayConfig, HagConfig } from '../config/schema.js'
import type { ServiceStatus } from '../control/status.js'
import type { Engine, EngineEvent, EngineOptions, Native } from '../engine/contract.js'
import { EventFeed } from '../telemetry/feed.js'
import { createLog, type Log } from '../telemetry/log.js'
import { eachEvent } from './faults.js'
import { LimitTally } from './limit-tally.js'
import { limitEvent } from './limits.js'
import { Refusals } from './refusals.js'
import { StopSignals } from './signals.js'
import { serviceStatus } from './status.js'

export async function startProgram({ log_level: level }: Pick<GatewayConfig | HagConfig, 'log_level'>) {
  const { native } = await import('../engine/load.js')
  const log = createLog(level)
  const events = new EventFeed(log)
  return { native, log, events, signals: new StopSignals(log, events.emit) }
}

export interface OpenOptions {
  native: Pick<Native, 'Engine'>
  config: GatewayConfig | HagConfig
  /** What is not in both configs. */
  engineOptions: Pick<EngineOptions, 'handshakeTimeoutMs' | 'decisionTimeoutMs' | 'mark'>
  log: Log
  events: EventFeed
  /** Takes all events but those of limits and refusals. */
  handle(event: EngineEvent): void
}

/** `close` also says who has been refused since it was last said. */
export function openEngine({ native, config, engineOptions, log, events, handle }: OpenOptions): {
  engine: Engine
  limits: EngineLimits
  status(): ServiceStatus
  close(): void
} {
  const { emit } = events
  const limits = engineLimits(config)
  const texts = limitTexts(config)
  const tally = new LimitTally()
  events.listen(tally.record)
  const engine: Engine = new native.Engine({
    ...limits,
    ...engineOptions,
    idleTimeoutMs: config.idle_timeout_seconds * 1000,
    onEvents: eachEvent(
      () => engine,
      log,
      (event) => {
        if (event.type === 'limit') emit(limitEvent(event, texts))
        else if (event.type === 'refused') refusals.refused()
        else handle(event)
      },
    ),
  })
  const refusals = new Refusals(engine, texts, emit)
  return {
    engine,
    limits,
    status: () => serviceStatus(engine, limits, tally),
    close() {
      refusals.close()
      engine.close()
    },
  }
}
