import { formatSocketAddress } from '../../base/address.js'
import { troubleOf } from '../hag-facts.js'
import type { Hag } from '../model.js'
import { whereOf } from './admission.js'
import type { HagDirectory } from './directory.js'
import type { HagAnswer, HagProber } from './prober.js'

/** `refused`: all that answered want other credentials. The reasons are one line of text. */
export interface FirstAnswer {
  state: 'some' | 'none' | 'refused'
  reasons: string
}

const firstAnswerMs = 3000
const some: FirstAnswer = { state: 'some', reasons: '' }

/** Asks those that are known while names are looked up, and then the others. The first that serves us is enough. */
export async function firstAnswer(
  hags: Pick<HagProber, 'askAll' | 'all'>,
  directory: Pick<HagDirectory, 'hags' | 'refresh'>,
  onChange: () => void,
): Promise<FirstAnswer> {
  return new Promise((resolve, reject) => {
    const hear = ({ result }: HagAnswer) => {
      if (result.ok) resolve(some)
    }
    const ask = async () => {
      const known = directory.hags
      const asked = hags.askAll(firstAnswerMs, known, hear)
      if (await directory.refresh()) onChange()
      const others = directory.hags.filter((hag) => !known.includes(hag))
      const answers = [...(await asked), ...(await hags.askAll(firstAnswerMs, others, hear))]
      return judge(hags.all, answers)
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
    // Whom it greets its rules may tell by the address.
    const where = result.stage === 'greeting' ? whereOf(path) : path.wan
    return [`HAG ${formatSocketAddress(hag)} over ${where}: ${troubleOf(hag, result)}`]
  })
  const none = all.length === 0 ? 'no name of a HAG can be looked up' : 'no WAN has an address of their family'
  return {
    state: refusing.size > 0 && refusing.size === all.length ? 'refused' : 'none',
    reasons: reasons.join('; ') || none,
  }
}
