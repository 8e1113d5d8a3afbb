/**
 * `npm run build:ts`: makes dist/, the programs and all that they import in a few files. Loading them takes 5 MB less memory than loading
 * some 300 modules, and no library has to be installed.
 */
import { chmodSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
rmSync('dist', { recursive: true, force: true })
const { metafile } = await build({
  entryPoints: ['src/main.ts', 'src/lab/programs/*.ts'],
  outbase: 'src',
  outdir: 'dist',
  // As deep as src/native/ and src/lab/, so that paths relative to a module (import.meta.url) stay right.
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  // Names and short lines stay, for readable stacks of unexpected errors.
  minifySyntax: true,
  minifyWhitespace: true,
  lineLimit: 140,
  // Bundled CommonJS libraries need it to load Node's own modules.
  banner: { js: "import {createRequire as $createRequire} from 'node:module';const require=$createRequire(import.meta.url);" },
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
})
chmodSync('dist/main.js', 0o755)

/** The licences of the bundled packages must be passed on. */
const packages = new Set(
  Object.keys(metafile.inputs).flatMap((path) => /^(node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []),
)
const licences = [...packages].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry))
  return `${name} ${version} (${license})\n\n${file === undefined ? '' : readFileSync(join(folder, file), 'utf8').trim()}\n`
})
writeFileSync('dist/LICENSES', licences.join(`\n${'-'.repeat(80)}\n\n`))
