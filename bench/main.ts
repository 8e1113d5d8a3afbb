/** Measures the candidates side by side in one run: see `usage`. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cleanUpOf } from '../test/support/clean-up.js'
import { Bed, buildTools } from './bed.js'
import { type Candidate, candidates, formerState, isInstalled } from './candidates.js'
import type { Figure } from './figures/figure.js'
import { figures } from './figures/index.js'
import { markdown, type Results, rowsOf, svg, table } from './report.js'

const usage = `Usage: npm run bench [-- OPTIONS]        as root, after npm run build

Measures bondsocks beside redsocks, v2ray, a bare redirector in C++ and no proxy at all, in turn, through the same HAG, and that HAG
beside Dante, in network namespaces of its own. Prints a table and writes bench/results/NAME.json and NAME.svg.

  --quick                under two minutes: less data, one repetition, two candidates at once in shaped labs, neither redsocks without
                         splice, nor v2ray, nor bondsocks without pool or to Dante, nor the gap at link down; goodput over 3 s can
                         exceed its ceiling by what had waited before
  --repetitions N        default: 3
  --only FIGURE,...      of ${figures.map(({ name }) => name).join(', ')}
  --candidates NAME,...  of ${candidates.map(({ name }) => `"${name}"`).join(', ')}
  --former DIR           beside them, as "former state", another checkout that is built, with its own HAG: what has become better, what worse
  --name NAME            default: latest
  --show NAME            measures nothing: prints bench/results/NAME.json as a Markdown table of medians
`
const results = fileURLToPath(new URL('results/', import.meta.url))

const scope = cleanUpOf('bench')

let isInterrupted = false

/** The items that an option names, or all. */
function chosen<Item extends { name: string }>(items: readonly Item[], names: string | undefined): Item[] {
  if (names === undefined) return [...items]
  return names.split(',').map((name) => {
    const found = items.find((item) => item.name === name)
    if (found === undefined) throw new Error(`there is no ${name}: take some of ${items.map(({ name }) => name).join(', ')}`)
    return found
  })
}

function describe(): string {
  const [cpu] = cpus()
  return `${cpus().length} cores of ${cpu?.model.trim()}, Linux ${release()}, Node ${process.version}`
}

async function measureOne(bed: Bed, candidate: Candidate, chosen: readonly Figure[], { values, failures }: Results) {
  const running = await candidate.start(bed)
  try {
    for (const { name, measure } of chosen) {
      if (isInterrupted) return
      try {
        for (const [id, value] of Object.entries(await measure(bed, running))) {
          values[id] ??= {}
          values[id][candidate.name] ??= []
          values[id][candidate.name]?.push(value)
          console.log(`  ${candidate.name.padEnd(23)} ${id.padEnd(18)} ${value.toPrecision(4)}`)
        }
      } catch (error) {
        failures.push(`${candidate.name}: ${name}: ${(error as Error).message}`)
        console.log(`  ${failures.at(-1)}`)
      }
    }
  } finally {
    await running.stop()
  }
}

async function main(): Promise<void> {
  const { values: options } = parseArgs({
    options: {
      help: { type: 'boolean', short: 'h' },
      quick: { type: 'boolean', default: false },
      repetitions: { type: 'string' },
      only: { type: 'string' },
      candidates: { type: 'string' },
      former: { type: 'string' },
      name: { type: 'string', default: 'latest' },
      show: { type: 'string' },
    },
  })
  if (options.help) return console.log(usage)
  const wanted = chosen(figures, options.only)
  const metrics = wanted.flatMap((figure) => figure.metrics)
  if (options.show !== undefined) {
    const shown = JSON.parse(readFileSync(`${results}${options.show}.json`, 'utf8')) as Results
    return console.log(markdown(shown, rowsOf(shown, metrics)).trimEnd())
  }
  if (process.getuid?.() !== 0) throw new Error('network namespaces take root: try it with sudo')
  const former = options.former === undefined ? [] : [formerState(resolve(options.former))]
  const taking = [...chosen(candidates, options.candidates), ...former].filter(
    ({ figures }) => !(options.quick && figures !== undefined),
  )
  const able = taking.filter(isInstalled)
  const repetitions = Number(options.repetitions ?? (options.quick ? 1 : 3))
  const found: Results = {
    date: new Date().toISOString().slice(0, 16),
    commit: execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).trim(),
    machine: describe(),
    quick: options.quick,
    repetitions,
    candidates: able.map(({ name }) => name),
    values: {},
    failures: taking.filter((one) => !isInstalled(one)).map(({ name, needs }) => `${name}: not measured: there is no ${needs}`),
  }
  await buildTools()

  for (const lab of ['unshaped', 'shaped'] as const) {
    const here = wanted.filter((figure) => figure.lab === lab)
    if (here.length === 0) continue
    const shaped = lab === 'shaped'
    // With shaped WANs the processors are idle, so quick runs measure two candidates at once, each in a lab of its own.
    const lanes = Array.from({ length: shaped && options.quick ? 2 : 1 })
    const beds = await Promise.all(lanes.map(() => Bed.create(scope, { shaped, quick: options.quick })))
    for (let repetition = 0; repetition < repetitions; repetition++) {
      console.log(`${lab} lab, ${repetition + 1} of ${repetitions}`)
      // Each repetition begins with another candidate, so that warming up and wearing out affect all alike.
      const first = repetition % able.length
      const order = [...able.slice(first), ...able.slice(0, first)]
      const shows = ({ figures: shown }: Candidate) => here.filter(({ name }) => shown?.includes(name) ?? true)
      const queue = order.filter((candidate) => shows(candidate).length > 0)
      await Promise.all(
        beds.map(async (bed) => {
          for (let next = queue.shift(); next !== undefined && !isInterrupted; next = queue.shift()) {
            await measureOne(bed, next, shows(next), found)
          }
        }),
      )
    }
    await scope.run()
  }

  const rows = rowsOf(found, metrics)
  mkdirSync(results, { recursive: true })
  writeFileSync(`${results}${options.name}.json`, `${JSON.stringify(found, null, 1)}\n`)
  writeFileSync(`${results}${options.name}.svg`, svg(found, rows))
  console.log(`\n${found.machine}, ${found.commit}\n\n${table(found, rows)}`)
  for (const failure of found.failures) console.log(failure)
  console.log(`written: bench/results/${options.name}.json and .svg`)
  if (found.failures.length > 0) process.exitCode = 1
}

async function interrupt(): Promise<void> {
  // The signal comes twice, from the terminal and from npm. The second one must not interrupt the clean-up.
  if (isInterrupted) return
  // Measurements under way fail, because their programs are gone; no new ones begin.
  isInterrupted = true
  await scope.run()
  process.exit(130)
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt)
// A reader of our output that has gone is an interrupt, too.
for (const stream of [process.stdout, process.stderr]) stream.on('error', interrupt)
try {
  await main()
} catch (error) {
  console.error(`bench: ${(error as Error).message}`)
  process.exitCode = 1
} finally {
  await scope.run()
}
