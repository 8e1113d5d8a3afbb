/** What the log says of an event. */
import type { Fields } from '../log.js'

export interface Line {
  readonly level: 'info' | 'warn' | 'error'
  readonly text: string
  readonly fields: Fields
}

export const info = (text: string, fields: Fields = {}): Line => ({ level: 'info', text, fields })
export const warn = (text: string, fields: Fields = {}): Line => ({ level: 'warn', text, fields })
export const error = (text: string, fields: Fields = {}): Line => ({ level: 'error', text, fields })

/** The line of each event of a topic. */
export type Lines<Topic> = { readonly [Name in keyof Topic]: (event: Topic[Name]) => Line }
