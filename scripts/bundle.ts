/**
 * `npm run build:ts`: dist/, the programs with all that they import in a few files. A process that loads them keeps 5 MB less than one that
 * loads some 300 modules, and no library has to be installed beside them.
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
  // What is found relative to a module (import.meta.url) is so from here, too: src/native/ and src/lab/ lie as deep.
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  // Names stay, and so do lines of a readable length: for the stack of an error that nobody foresaw.
  minifySyntax: true,
  minifyWhitespace: true,
  lineLimit: 140,
  // CommonJS modules among the libraries ask for Node's own modules with it.
  banner: { js: "import {createRequire as $createRequire} from 'node:module';const require=$createRequire(import.meta.url);" },
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
})
chmodSync('dist/main.js', 0o755)

/** Their licences ask to be passed on. */
const packages = new Set(
  Object.keys(metafile.inputs).flatMap((path) => /^(node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []),
)
const licences = [...packages].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry))
  return `${name} ${version} (${license})\n\n${file === undefined ? '' : readFileSync(join(folder, file), 'utf8').trim()}\n`
})
writeFileSync('dist/LICENSES', licences.join(`\n${'-'.repeat(80)}\n\n`))
