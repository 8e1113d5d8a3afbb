/** `npm run schema`: writes config/*.schema.json from the schema in src/config/schema.ts. */
import { writeFileSync } from 'node:fs'
import { schemaFile } from '../src/config/json-schema.js'

for (const kind of ['gateway', 'hag'] as const) {
  writeFileSync(new URL(`../config/${kind}.schema.json`, import.meta.url), schemaFile(kind))
}
