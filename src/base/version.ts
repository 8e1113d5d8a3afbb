import { readFileSync } from 'node:fs'

/** The version of this program. In dist/ this code lies in chunks/, as deep as here. */
export function version(): string {
  return (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version
}
