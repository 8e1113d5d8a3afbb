/** What may be written in a config file as JSON Schema, for editors: makes `config/*.schema.json`. */
import * as z from 'zod/mini'
import { gatewaySchema, hagSchema } from './schema.js'

export function jsonSchema(kind: 'gateway' | 'hag'): object {
  return z.toJSONSchema(kind === 'gateway' ? gatewaySchema : hagSchema, { io: 'input' })
}

/** The text of `config/KIND.schema.json`. */
export function schemaFile(kind: 'gateway' | 'hag'): string {
  return `${JSON.stringify({ ...jsonSchema(kind), title: `bondsocks ${kind} config` }, null, 2)}\n`
}
