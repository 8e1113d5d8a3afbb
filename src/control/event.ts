/** An event as the control socket and `monitor --json` show it. */
import { type Event, lineOf } from '../telemetry/events.js'

export interface EventMessage {
  /** ISO 8601, UTC. */
  at: string
  /** Its stable name. */
  type: string
  level: string
  text: string
  /** Its other fields, in snake_case. */
  [field: string]: unknown
}

export function messageOf(event: Event, at: Date): EventMessage {
  const { type, ...fields } = event
  const { level, text } = lineOf(event)
  return Object.assign({ at: at.toISOString(), type, level, text }, inSnakeCase(fields))
}

function inSnakeCase(value: unknown): unknown {
  if (value instanceof Set) return inSnakeCase([...value])
  if (Array.isArray(value)) return value.map(inSnakeCase)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), inSnakeCase(one)]),
  )
}
