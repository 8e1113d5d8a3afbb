/** The lab's scenarios as tests: what `bondsocks lab run` prints are comments, and what it would fail with is a failure. */
import t from 'tap'
import { labUp } from '../../src/lab/lab.js'
import { Stage } from '../../src/lab/scenario.js'
import { scenarios } from '../../src/lab/scenarios/index.js'
import { needsRoot, randomName } from './namespaces.js'
import { bondsocks } from './process.js'

/** One after the other, so that they do not disturb each other's timing. */
export function testScenarios(...names: string[]): void {
  for (const name of names) {
    t.test(name, { skip: needsRoot }, async (t) => {
      const scenario = scenarios[name]
      if (scenario === undefined) throw new Error(`there is no scenario ${name}`)
      const lab = await labUp({ topology: scenario.topology, name: randomName() })
      t.teardown(() => lab.down())
      const print = (text: string) => text.trim() !== '' && t.comment(text.trimEnd())
      const stage = new Stage(lab, new AbortController().signal, { bondsocks: bondsocks(), print, wildly: 10 })
      try {
        await scenario.run(stage)
      } finally {
        await stage.close()
      }
      t.same(stage.misses, [])
    })
  }
}
