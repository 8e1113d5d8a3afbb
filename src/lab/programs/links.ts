/**
 * The process that holds a lab's emulated links, started by labUp as `links FOLDER`. It reads the links from FOLDER/links.json, prints
 * `ready` or what went wrong, and then serves FOLDER/links.sock, one request for each connection. It ends at SIGTERM, and when the folder
 * or a namespace is gone.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { EmulatorAddon, LinkDirection, LinkEmulator, LinkEnd } from '../emulator.js'

export interface LinkPlan {
  name: string
  /** The CPE's end, and the other one. */
  ends: [LinkEnd, LinkEnd]
  up: LinkDirection
  down: LinkDirection
}

export type LinkRequest =
  | { link: string; up: LinkDirection; down: LinkDirection }
  | { link: string; carrier: boolean }
  /** Makes the devices of a link again. */
  | { make: LinkPlan }

const watchMs = 1000

async function main(folder: string): Promise<void> {
  // First, so that labDown knows which process to end.
  writeFileSync(join(folder, 'links.pid'), `${process.pid}\n`)
  const plans = JSON.parse(readFileSync(join(folder, 'links.json'), 'utf8')) as LinkPlan[]
  const emulator = createRequire(import.meta.url)('../../../build/lab.node') as EmulatorAddon
  const links = new Map<string, LinkEmulator>()
  const make = ({ name, ends, up, down }: LinkPlan) => {
    links.get(name)?.close()
    links.set(name, new emulator.LinkEmulator(...ends, up, down))
  }
  for (const plan of plans) make(plan)

  const socket = join(folder, 'links.sock')
  const server = createServer({ allowHalfOpen: true }, (client) => {
    let text = ''
    client.on('error', () => client.destroy())
    client.on('data', (data) => {
      text += data.toString()
    })
    client.on('end', () => client.end(answer(links, make, text)))
  })
  server.listen(socket, () => process.stdout.write('ready\n'))

  const paths = [folder, ...plans.flatMap(({ ends }) => ends.map(({ netns }) => netns))]
  const end = () => process.exit(0)
  process.on('SIGTERM', end)
  setInterval(() => {
    if (!paths.every((path) => existsSync(path))) end()
  }, watchMs)
}

/** Empty, or an error text. */
function answer(links: ReadonlyMap<string, LinkEmulator>, make: (plan: LinkPlan) => void, text: string): string {
  try {
    const request = JSON.parse(text) as LinkRequest
    if ('make' in request) {
      make(request.make)
      return ''
    }
    const link = links.get(request.link)
    if (link === undefined) return `there is no link ${request.link}`
    if ('carrier' in request) {
      link.setCarrier('first', request.carrier)
    } else {
      link.set('forward', request.up)
      link.set('backward', request.down)
    }
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

// The process that started us may have ended.
process.stdout.on('error', () => {})
main(process.argv[2] ?? '').catch((error: NodeJS.ErrnoException) => {
  const isUnbuilt = error.code === 'MODULE_NOT_FOUND'
  process.stdout.write(`${isUnbuilt ? 'the addon is not built: run `npm run build`' : error.message}\n`, () => process.exit(1))
})
