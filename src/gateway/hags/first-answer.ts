import { formatSocketAddress } from '../../base/address.js'
import { troubleOf, whereOf } from '../hag-troubles.js'
import type { Hag } from '../model.js'
import type { HagDirectory } from './directory.js'
import type { HagAnswer, HagProber, KnownHag } from './hag-prober.js'

/** `refused`: all that answered want other credentials. `reasons` is one line of text. */
export interface FirstAnswer {
  state: 'some' | 'none' | 'refused'
  reasons: string
}

const firstAnswerMs = 3000
const some: FirstAnswer = { state: 'some', reasons: '' }

/** Asks the known HAGs while names are looked up, and then the others. The first that serves us is enough. */
export async function firstAnswer(options: {
  prober: Pick<HagProber<KnownHag>, 'askAll'>
  directory: Pick<HagDirectory, 'refresh'>
  /** All known HAGs, best first. */
  hags(): readonly Hag[]
  /** The directory has found others. */
  onChange(): void
}): Promise<FirstAnswer> {
  const { prober, directory, hags, onChange } = options
  return new Promise((resolve, reject) => {
    const onAnswer = ({ result }: HagAnswer) => {
      if (result.ok) resolve(some)
    }
    const ask = async () => {
      const known = hags()
      const asked = prober.askAll(firstAnswerMs, known, onAnswer)
      if (await directory.refresh()) onChange()
      const others = hags().filter((hag) => !known.includes(hag))
      const answers = [...(await asked), ...(await prober.askAll(firstAnswerMs, others, onAnswer))]
      return judge(hags(), answers)
    }
    ask().then(resolve, reject)
  })
}

function judge(all: readonly Hag[], answers: readonly HagAnswer[]): FirstAnswer {
  const refusing = new Set(
    answers.flatMap(({ hag, result }) =>
      !result.ok && result.stage !== 'connect' && result.failure.code === 'EACCES' ? [hag] : [],
    ),
  )
  const reasons = answers.flatMap(({ hag, path, result }) => {
    if (result.ok) return []
    // The HAG's rules may depend on our address.
    const where = result.stage === 'greeting' ? whereOf(path) : path.wan
    return [`HAG ${formatSocketAddress(hag)} over ${where}: ${troubleOf(hag, result)}`]
  })
  const none = all.length === 0 ? 'no name of a HAG can be looked up' : 'no WAN has an address of their family'
  return {
    state: refusing.size > 0 && refusing.size === all.length ? 'refused' : 'none',
    reasons: reasons.join('; ') || none,
  }
}
