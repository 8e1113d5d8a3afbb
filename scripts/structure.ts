/**
 * Part of `npm run check:structure`, what the import rules do not see: no file above 350 lines, C++ includes neither upwards nor in a circle,
 * no clock in what decides, no spread of an object that hides misspelt keys, and in the names of src/, scripts/ and
 * test/ no word that the glossary of docs/ARCHITECTURE.md replaces. Prints what is wrong; then the exit status is 1.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { clockFaults, type Files, forbiddenWords, includeFaults, longFiles, spreadFaults, wordFaults } from './lib/structure.js'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))

const filesIn = (folder: string): Files => {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => /\.(ts|h|cpp)$/.test(name))
  return new Map(names.sort().map((name) => [name, readFileSync(`${folder}/${name}`, 'utf8')]))
}
const typescript = (files: Files): Files => new Map([...files].filter(([name]) => name.endsWith('.ts')))
const inFolder = (folder: string, faults: readonly string[]) => faults.map((fault) => `${folder}/${fault}`)

/** As the import rules have it. */
const { forbidden }: { forbidden: { name: string; from: { path?: string | string[] } }[] } = createRequire(import.meta.url)(
  '../.dependency-cruiser.cjs',
)
const decisions = forbidden.find(({ name }) => name === 'decisions-do-nothing')?.from.path
if (!Array.isArray(decisions)) throw new Error('.dependency-cruiser.cjs has no rule "decisions-do-nothing"')
const isDecision = (path: string) => decisions.some((pattern) => new RegExp(pattern).test(path))
const deciding = new Map(
  [...filesIn('src')].map(([path, text]) => [`src/${path}`, text] as const).filter(([path]) => isDecision(path)),
)

const words = forbiddenWords(readFileSync('docs/ARCHITECTURE.md', 'utf8'))
if (words.length === 0) throw new Error('docs/ARCHITECTURE.md has no glossary with a column "not"')

const faults = [
  ...['src', 'bench', 'scripts', 'test'].flatMap((folder) => inFolder(folder, longFiles(filesIn(folder)))),
  ...inFolder('src/native', includeFaults(filesIn('src/native'))),
  ...inFolder('src', spreadFaults(typescript(filesIn('src')))),
  ...['src', 'scripts', 'test'].flatMap((folder) => inFolder(folder, wordFaults(filesIn(folder), words))),
  ...clockFaults(deciding),
]
for (const fault of faults) console.error(fault)
process.exitCode = faults.length > 0 ? 1 : 0
