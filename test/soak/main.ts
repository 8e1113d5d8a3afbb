/** `npm run soak`: see `usage`. */
import { parseArgs } from 'node:util'
import { cleanUpOf } from '../support/clean-up.js'
import { soak } from './soak.js'

const usage = `Usage: npm run soak -- [OPTIONS]        as root, after npm run build

The gateway and the HAG in network namespaces of their own, under everything at once: short requests, downloads, uploads, echo streams,
idle and half-closed connections whose every byte is checked; cuts of one WAN at a time, HAGs ended and killed; and clients who read
slowly or not at all, reset, send garbage and urgent bytes, scan the redirector and besiege the HAG. Fails if a request fails that no
cut or restart excuses, if one hangs or is executed twice, and if memory, descriptors or the log grow.

  --minutes N     default: 10
  --seed N        of chance; default: another one each time, which is printed

Exit codes: 0 all was well, 1 something was not, 2 wrong use.
`

const scope = cleanUpOf('soak')

function options(): { minutes: number; seed: number } {
  try {
    const { values } = parseArgs({
      options: { minutes: { type: 'string' }, seed: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    })
    if (values.help) {
      console.log(usage)
      process.exit(0)
    }
    const minutes = Number(values.minutes ?? 10)
    const seed = Number(values.seed ?? Math.floor(Math.random() * 1e6))
    if (!(minutes > 0) || !Number.isInteger(seed)) throw new Error('--minutes and --seed take numbers')
    return { minutes, seed }
  } catch (error) {
    console.error(`soak: ${(error as Error).message}\n\n${usage}`)
    process.exit(2)
  }
}

const { minutes, seed } = options()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  // The signal comes twice: to the whole process group, and once more from npm, which passes it on.
  process.on(signal, async () => {
    await scope.run()
    process.exit(130)
  })
}
let failed = true
try {
  console.log(`soak: ${minutes} minutes, --seed ${seed}`)
  const { summary, violations } = await soak(scope, { minutes, seed, say: console.log })
  console.log(`\n${summary.join('\n')}\n`)
  for (const violation of violations.slice(0, 40)) console.log(`VIOLATION: ${violation}`)
  if (violations.length > 40) console.log(`and ${violations.length - 40} more`)
  console.log(violations.length === 0 ? 'all was well' : `${violations.length} violations`)
  failed = violations.length > 0
} catch (error) {
  console.error(error)
} finally {
  await scope.run()
}
process.exit(failed ? 1 : 0)
