/** Where the control sockets are: one for each gateway or HAG of a network namespace, which is known by its cookie, as locks are. */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { isAnswered } from './socket.js'

export const folder = '/run/bondsocks'

async function prefix(): Promise<string> {
  // Imported here, because it needs the addon.
  const { native } = await import('../engine/load.js')
  return `net-${native.netnsCookie()}.`
}

/** `name`: `gateway`, or `hag-PORT`. */
export const controlPath = async (name: string): Promise<string> => join(folder, `${await prefix()}${name}.sock`)

/** All that are here, also those of killed programs; gateways first. */
export async function controlPaths(): Promise<string[]> {
  const begin = await prefix()
  try {
    const names = readdirSync(folder).filter((name) => name.startsWith(begin) && name.endsWith('.sock'))
    return names.sort().map((name) => join(folder, name))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    // Only root may list the folder; others may know the names.
    if (code === 'EACCES') return [await controlPath('gateway'), await controlPath('hag-1080')]
    throw cause
  }
}

/** Those that killed programs have left. */
export async function removeStaleSockets(): Promise<void> {
  for (const path of await controlPaths()) if (!(await isAnswered(path))) rmSync(path, { force: true })
}
