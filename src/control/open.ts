/** Opens the control socket of a role. */
import { readFileSync } from 'node:fs'
import { BondsocksError } from '../base/errors.js'
import { version } from '../base/version.js'
import type { EventFeed } from '../telemetry/feed.js'
import { messageOf } from './event.js'
import { controlPath, folder } from './path.js'
import { protocolVersion } from './protocol.js'
import { type ControlOptions, type ControlSocket, openControlSocket } from './socket.js'

export type Commands = ControlOptions['commands']

export interface OpenControlOptions {
  role: 'gateway' | 'hag'
  /** As in `controlPath`. */
  name: string
  /** `control_group` of the config. */
  group: string | undefined
  events: EventFeed
}

/** Without it (/run is read-only, or not ours) the role serves all the same, and says so. Rejects with `CONTROL_GROUP`. */
export async function openControl({ role, name, group, events }: OpenControlOptions, commands: Commands): Promise<ControlSocket> {
  const id = group === undefined ? undefined : groupId(group)
  const about = { bondsocks: version(), protocol: protocolVersion, role, pid: process.pid }
  try {
    const listen = (listener: (message: object) => void) =>
      events.listen((event) => listener({ event: messageOf(event, new Date()) }))
    return await openControlSocket({ path: await controlPath(name), group: id, about, commands, listen })
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    const isFolderOfRoot = process.getuid?.() !== 0 && (code === 'BAD_FOLDER' || code === 'EACCES')
    events.emit({
      type: 'control-failed',
      reason: isFolderOfRoot ? `it needs root, or ${folder} as a folder of this user` : message,
    })
    return { close: () => undefined }
  }
}

function groupId(name: string): number {
  const groups = readFileSync('/etc/group', 'utf8').split('\n')
  const id = groups.map((line) => line.split(':')).find(([known]) => known === name)?.[2]
  if (id !== undefined) return Number(id)
  throw new BondsocksError('CONTROL_GROUP', `control_group: there is no group ${name} in /etc/group`, { exitCode: 2 })
}
