/** How a program that ends by itself ended. */
import { execFile } from 'node:child_process'
import { cleanEnvironment } from './process.js'

export interface Outcome {
  code: number
  stdout: string
  stderr: string
}

/** Runs a program to its end, at most 30 s. */
export function outcome(argv: string[]): Promise<Outcome> {
  const [file = '', ...rest] = argv
  return new Promise((resolve) => {
    const child = execFile(file, rest, { env: cleanEnvironment(), timeout: 30_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : (child.exitCode ?? -1), stdout, stderr })
    })
  })
}
