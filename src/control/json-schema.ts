/** What `bondsocks status --json` prints, as JSON Schema. */
import * as z from 'zod/mini'
import { gatewayStatus, hagStatus } from './status.js'

/** The text of `config/status.schema.json`. */
export function statusSchemaFile(): string {
  const anyOf = [gatewayStatus, hagStatus].map((one) => z.toJSONSchema(one))
  return `${JSON.stringify({ title: 'bondsocks status', anyOf }, null, 2)}\n`
}
