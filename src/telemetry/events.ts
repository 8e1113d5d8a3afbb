/**
 * What happens to the product, as data that the log renders, and all that shows the product to people may. Each file in `events/` has the
 * events of one topic with their lines. A name is stable once it is released: others look for it.
 */
import { type ConnectionEvents, connectionLines } from './events/connections.js'
import { type HagEvents, hagLines } from './events/hags.js'
import { type LimitEvents, limitLines } from './events/limits.js'
import type { Line } from './events/line.js'
import { type NetworkEvents, networkLines } from './events/network.js'
import { type ServiceEvents, serviceLines } from './events/service.js'
import { type UseEvents, useLines } from './events/use.js'
import { type WanEvents, wanLines } from './events/wans.js'
import type { Log } from './log.js'

/** By name. */
interface Events extends WanEvents, UseEvents, HagEvents, ConnectionEvents, NetworkEvents, ServiceEvents, LimitEvents {}

export type Event = { [Name in keyof Events]: { readonly type: Name } & Events[Name] }[keyof Events]

/** Given to whoever has something to say. */
export type Emit = (event: Event) => void

const lines = { ...wanLines, ...useLines, ...hagLines, ...connectionLines, ...networkLines, ...serviceLines, ...limitLines }

/** The names of all events. */
export const eventNames = Object.keys(lines)

export const lineOf = (event: Event): Line => (lines[event.type] as (event: Event) => Line)(event)

export const toLog =
  (log: Log): Emit =>
  (event) => {
    const { level, text, fields } = lineOf(event)
    log[level](text, fields)
  }
