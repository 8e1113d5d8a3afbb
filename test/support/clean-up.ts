/** What a tap test does of itself, for programs that are no tests: what was registered is undone at the end, the last thing first. */
import type { Scope } from './namespaces.js'

export interface CleanUp extends Scope {
  /** Goes on if a handler fails. A second call waits for the first. */
  run(): Promise<void>
}

export function cleanUpOf(program: string): CleanUp {
  const handlers: (() => unknown)[] = []
  let cleaning = Promise.resolve()
  return {
    teardown: (handler) => handlers.push(handler),
    run() {
      cleaning = cleaning.then(async () => {
        for (let handler = handlers.pop(); handler !== undefined; handler = handlers.pop()) {
          try {
            await handler()
          } catch (error) {
            console.error(`${program}: cleaning up: ${(error as Error).message}`)
          }
        }
      })
      return cleaning
    },
  }
}
