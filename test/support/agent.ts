/**
 * A process of ours inside a namespace that runs servers and clients there. Tests import this file to start one; started with an IPC
 * channel, it is that process.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { soakHostile } from '../soak/hostile.js'
import { soakLoad } from '../soak/load.js'
import { soakServer } from '../soak/server.js'
import { clients } from './clients.js'
import { dns } from './dns.js'
import type { Scope } from './namespaces.js'
import { cleanEnvironment } from './process.js'
import { servers } from './servers.js'

const functions = { ...servers, ...clients, ...dns, ...soakServer, ...soakLoad, ...soakHostile }
type Functions = typeof functions
interface Call {
  id: number
  name: keyof Functions
  args: unknown[]
}
interface Answer {
  id: number
  value?: unknown
  error?: string
}

export interface Agent {
  pid: number
  call<Name extends keyof Functions>(name: Name, ...args: Parameters<Functions[Name]>): ReturnType<Functions[Name]>
  end(): Promise<void>
}

/** Starts the process; `argv` puts a command line into its namespace. It is ended with the test. */
export async function startAgent(scope: Scope, place: { argv(...argv: string[]): string[] }): Promise<Agent> {
  const self = fileURLToPath(import.meta.url)
  const loader = self.endsWith('.ts') ? ['--import=tsx'] : []
  const [file = '', ...rest] = place.argv(process.execPath, ...loader, self, 'agent')
  const child = spawn(file, rest, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env: cleanEnvironment() })
  const waiting = new Map<number, { resolve(value: unknown): void; reject(reason: Error): void }>()
  child.on('message', ({ id, value, error }: Answer) => {
    const call = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) call?.resolve(value)
    else call?.reject(new Error(error))
  })
  child.on('exit', () => {
    for (const { reject } of waiting.values()) reject(new Error('the agent ended'))
  })
  const end = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  scope.teardown(end)
  await once(child, 'message')
  let last = 0
  const call = (name: keyof Functions, ...args: unknown[]) =>
    new Promise((resolve, reject) => {
      const id = ++last
      waiting.set(id, { resolve, reject })
      child.send({ id, name, args } satisfies Call)
    })
  return { pid: child.pid ?? 0, call: call as Agent['call'], end }
}

if (process.argv[2] === 'agent' && process.send) {
  const answer = (message: Answer) => process.send?.(message)
  process.on('message', async ({ id, name, args }: Call) => {
    try {
      const run = functions[name] as (...args: unknown[]) => Promise<unknown>
      answer({ id, value: await run(...args) })
    } catch (error) {
      answer({ id, error: (error as Error).message })
    }
  })
  // End with the test, even if it is killed.
  process.on('disconnect', () => process.exit(0))
  answer({ id: 0 })
}
