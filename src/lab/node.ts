import { fileURLToPath } from 'node:url'

/** The command line that runs one of our own modules with this Node; the TypeScript source if we run from sources. */
export function nodeArgv(path: string): string[] {
  const isSource = import.meta.url.endsWith('.ts')
  const module = fileURLToPath(new URL(`../${path}.${isSource ? 'ts' : 'js'}`, import.meta.url))
  return [process.execPath, ...(isSource ? ['--import', import.meta.resolve('tsx')] : []), module]
}
