/** Ends what runs in a lab. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { execute } from './commands.js'

/** Ends the process that holds the links, where there still is one. */
export async function endLinks(folder: string): Promise<void> {
  const file = join(folder, 'links.pid')
  if (!existsSync(file)) return
  const pid = Number(readFileSync(file, 'utf8'))
  // Ids are used again: only the process that was started for this folder is ours.
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

/** For processes to end by themselves. */
const patienceMs = 2000

/** SIGTERM first, so that a gateway can take its network set-up away; SIGKILL to what does not end by that. */
async function endAll(find: () => number[] | Promise<number[]>): Promise<void> {
  const send = (pids: number[], signal: NodeJS.Signals) => {
    for (const pid of pids) {
      try {
        process.kill(pid, signal)
      } catch {
        // Gone meanwhile.
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
