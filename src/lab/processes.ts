/** Ends what runs in a lab. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { execute } from './commands.js'

/** Ends the process that holds the links, if there still is one. */
export async function endLinks(folder: string): Promise<void> {
  const file = join(folder, 'links.pid')
  if (!existsSync(file)) return
  const pid = Number(readFileSync(file, 'utf8'))
  // Process ids are used again: ours is the one that was started for this folder.
  const isOurs = () => commandLine(pid).includes(folder)
  await endAll(() => (isOurs() ? [pid] : []))
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return []
  }
}

export async function endProcesses(namespace: string): Promise<void> {
  await endAll(async () => {
    const { stdout } = await execute(['ip', 'netns', 'pids', namespace])
    return stdout.split('\n').filter(Boolean).map(Number)
  })
}

/** How long processes have to end after SIGTERM. */
const patienceMs = 2000

/** Sends SIGTERM, so that a gateway can remove its network set-up, and later SIGKILL to processes that have not ended. */
async function endAll(find: () => number[] | Promise<number[]>): Promise<void> {
  const send = (pids: number[], signal: NodeJS.Signals) => {
    for (const pid of pids) {
      try {
        process.kill(pid, signal)
      } catch {
        // It has ended.
      }
    }
  }
  let left = (await find()).filter((pid) => pid !== process.pid)
  send(left, 'SIGTERM')
  const deadline = performance.now() + patienceMs
  while (left.length > 0) {
    if (performance.now() > deadline) send(left, 'SIGKILL')
    if (performance.now() > 2 * patienceMs + deadline) return
    await sleep(20)
    left = (await find()).filter((pid) => pid !== process.pid)
  }
}
