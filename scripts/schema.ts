/** `npm run schema`: writes config/*.schema.json from src/config/schema.ts and src/control/status.ts. */
import { writeFileSync } from 'node:fs'
import { schemaFile } from '../src/config/json-schema.js'
import { statusSchemaFile } from '../src/control/json-schema.js'

for (const kind of ['gateway', 'hag'] as const) {
  writeFileSync(new URL(`../config/${kind}.schema.json`, import.meta.url), schemaFile(kind))
}
writeFileSync(new URL('../config/status.schema.json', import.meta.url), statusSchemaFile())
